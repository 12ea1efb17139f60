"""Codes as the words and bytes of a checkpoint, and back.

Integers: signed codes as a dense little-endian bit stream in int32 words. A code is stored as
``code + 2^(bits−1)``, least significant bit first, one row after another; 32 codes fill exactly ``bits``
words, so that 3-bit codes cross words, and rows are padded with zero bits to whole words. Four-bit floats
(E2M1): two codes a byte, the first one low, bit 3 the sign. Powers of two (E8M0): the exponent plus 127 in a
byte.

Rows in GGUF's types as the bytes that llama.cpp reads: a block after the other, each with its units, its
scales and its codes. A checkpoint of edgepress keeps them as they are.

Bytes hold several codes: of a run of the row, the codes that lie ``width`` apart, the first one lowest.
Products of a unit and an integer are exact in float32, so that the units are found again from the scales.
"""

import torch
from torch import Tensor

from ....errors import CheckpointError, ShapeError
from ...numbers.block_types import BLOCK_TYPES, POINTS, BlockType
from ...numbers.qtensor import QTensor
from ...numbers.scheme import WORD_SIDE, Scheme

_CODES_AT_ONCE = 1 << 20  # each is eight bytes wide while it is worked on
_POINTS = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12], dtype=torch.int8)  # of E2M1, doubled, by index
_BIAS, _NAN = 127, 255  # of E8M0
# By type, what follows what in a block and its bytes: ``unit`` and ``low`` are float16.
_FIELDS = {
    "q2_k": {"scales": 16, "codes": 64, "unit": 2, "low": 2},
    "q3_k": {"high": 32, "codes": 64, "scales": 12, "unit": 2},
    "q4_k": {"unit": 2, "low": 2, "scales": 12, "codes": 128},
    "q5_k": {"unit": 2, "low": 2, "scales": 12, "high": 32, "codes": 128},
    "q6_k": {"codes": 128, "high": 64, "scales": 16, "unit": 2},
    "iq4_nl": {"unit": 2, "codes": 16},
}
# By type, bits and width of the codes' low bits, and of the high ones.
_LOW = {
    "q2_k": (2, 32),
    "q3_k": (2, 32),
    "q4_k": (4, 32),
    "q5_k": (4, 32),
    "q6_k": (4, 64),
    "iq4_nl": (4, 16),
}
_HIGH = {"q3_k": (1, 32), "q5_k": (1, 32), "q6_k": (2, 32)}


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack ``codes [rows, columns]`` int8 into int32 ``[rows, ceil(columns · bits / 32)]``."""
    rows = max(1, _CODES_AT_ONCE // codes.shape[1])
    return torch.cat([_pack_rows(part, bits) for part in torch.split(codes, rows)])


def _pack_rows(codes: Tensor, bits: int) -> Tensor:
    rows, columns = codes.shape
    if 8 % bits == 0:
        return _pack_bytes(codes, bits)
    unsigned = codes.to(torch.int64) + (1 << (bits - 1))
    padded = torch.nn.functional.pad(unsigned, (0, -columns % 32)).view(rows, -1, 32)
    words = torch.zeros(rows, padded.shape[1], bits, dtype=torch.int64, device=codes.device)
    for index in range(32):
        word, offset = divmod(index * bits, 32)
        words[..., word] |= padded[..., index] << offset
        if offset + bits > 32:
            words[..., word + 1] |= padded[..., index] >> (32 - offset)
    low = (words & 0xFFFFFFFF).view(rows, -1)[:, : -(-columns * bits // 32)]
    # int64 to int32 keeps the low 32 bits: the sign bit is just the last bit of the stream.
    return torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32).contiguous()


def _pack_bytes(codes: Tensor, bits: int) -> Tensor:
    """:func:`_pack_rows` where a byte holds whole codes."""
    unsigned = codes.contiguous().view(torch.uint8) + (1 << (bits - 1))  # wraps around
    padded = torch.nn.functional.pad(unsigned, (0, -codes.shape[1] % (32 // bits)))
    parts = padded.view(len(codes), -1, 8 // bits)
    packed = parts[..., 0].clone()
    for index in range(1, 8 // bits):
        packed |= parts[..., index] << (bits * index)
    return packed.view(torch.int32)


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Inverse of :func:`pack`: int8 codes ``[rows, columns]`` from int32 ``words``."""
    rows = max(1, _CODES_AT_ONCE // columns)
    codes = torch.empty(len(words), columns, dtype=torch.int8, device=words.device)
    for place, part in zip(torch.split(codes, rows), torch.split(words, rows), strict=True):
        place.copy_(_unpack_rows(part, bits, columns))
    return codes


def _unpack_rows(words: Tensor, bits: int, columns: int) -> Tensor:
    mask, half = (1 << bits) - 1, 1 << (bits - 1)
    stream = words.contiguous().view(torch.uint8)
    if 8 % bits:  # eight codes are a whole number of bytes
        parts = torch.nn.functional.pad(stream, (0, -stream.shape[1] % bits)).view(len(words), -1, bits)
        stream = parts[..., 0].to(torch.int64)
        for index in range(1, bits):
            stream |= parts[..., index].to(torch.int64) << (8 * index)
    count = 8 // bits if 8 % bits == 0 else 8
    codes = torch.empty(*stream.shape, count, dtype=torch.uint8, device=words.device)
    for index in range(count):
        codes[..., index] = (stream >> (bits * index)) & mask
    return (codes.flatten(1)[:, :columns] - half).view(torch.int8)  # wraps around


def pack_e2m1(codes: Tensor) -> Tensor:
    """``codes [rows, columns]``, points doubled, as bytes ``[rows, columns / 2]``."""
    index = torch.searchsorted(_POINTS.to(codes.device), codes.abs()).to(torch.uint8)
    index |= (codes < 0).to(torch.uint8) << 3
    return index[:, ::2] | index[:, 1::2] << 4


def unpack_e2m1(packed: Tensor) -> Tensor:
    """Inverse of :func:`pack_e2m1`."""
    index = torch.stack((packed & 15, packed >> 4), -1).flatten(1)
    points = _POINTS.to(packed.device)[(index & 7).long()]
    return torch.where(index >= 8, -points, points)


def unpack_e8m0(name: str, stored: Tensor) -> Tensor:
    """The powers of two, float32, that the bytes of the tensor ``name`` stand for."""
    if stored.dtype != torch.uint8 or bool((stored == _NAN).any()):
        raise CheckpointError(f"{name} holds exponents that are none")
    return torch.ldexp(torch.ones(stored.shape), stored.to(torch.int32) - _BIAS)


def pack_blocks(tensor: QTensor) -> Tensor:
    """``[out, bytes]`` uint8."""
    name, tensor = tensor.scheme.format, tensor.to("cpu")
    kind = BLOCK_TYPES[name]
    codes = tensor.codes.reshape(-1, kind.groups * kind.size)
    values = torch.bucketize(codes.to(torch.int64), POINTS) if kind.uneven else codes - kind.codes[0]
    unit, scales = _counted(tensor.scale.reshape(-1, kind.groups), *kind.scales)
    values = values.to(torch.uint8)
    (bits, width), found = _LOW[name], {"unit": _bytes_of(unit)}
    found["codes"] = _packed(values & ((1 << bits) - 1), bits, width)
    if name in _HIGH:
        found["high"] = _packed(values >> bits, *_HIGH[name])
    low = torch.zeros_like(scales)
    if tensor.minimum is not None:
        low_unit, low = _counted(tensor.minimum.reshape(-1, kind.groups), 0, kind.minima)
        found["low"] = _bytes_of(low_unit)
    if "scales" in _FIELDS[name]:
        found["scales"] = _pack_scales(name, scales, low)
    return torch.cat([found[field] for field in _FIELDS[name]], 1).reshape(len(tensor.codes), -1)


def unpack_blocks(blocks: Tensor, scheme: Scheme) -> QTensor:
    """Inverse of :func:`pack_blocks`."""
    name, rows = scheme.format, len(blocks)
    kind, fields = BLOCK_TYPES[name], _FIELDS[name]
    parts = torch.split(blocks.reshape(-1, sum(fields.values())), list(fields.values()), 1)
    found = dict(zip(fields, parts, strict=True))
    bits = _LOW[name][0]
    values = _unpacked(found["codes"], *_LOW[name])
    if name in _HIGH:
        values = values | _unpacked(found["high"], *_HIGH[name]) << bits
    codes = POINTS[values.long()] if kind.uneven else values.to(torch.int16) + kind.codes[0]
    scales, low = _unpack_scales(name, found.get("scales"), kind, len(values))
    minimum = None if not kind.minima else (_float(found["low"]) * low).reshape(rows, -1)
    scale = (_float(found["unit"]) * scales).reshape(rows, -1)
    return QTensor(scheme, codes.to(torch.int8).reshape(rows, -1), scale, minimum=minimum)


def pack_words(tensor: QTensor) -> Tensor:
    """``[⌈out / 8⌉, bytes]`` uint8: the words of eight rows beside each other, a word its symbols' bits."""
    codes, bits = tensor.codes.to("cpu"), tensor.scheme.bits
    rows, columns = codes.shape
    padded = torch.nn.functional.pad(codes, (0, 0, 0, -rows % WORD_SIDE)).to(torch.uint8)
    words = padded.view(-1, WORD_SIDE, columns // WORD_SIDE, WORD_SIDE).transpose(1, 2)
    each = words.unsqueeze(-1) >> torch.arange(bits, dtype=torch.uint8) & 1
    places = each.reshape(len(each), -1, 8) << torch.arange(8, dtype=torch.uint8)
    return places.sum(-1, dtype=torch.uint8)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """``codes [rows, in]`` int8 of the rows of ``words [words, bytes]``; inverse of :func:`pack_words`."""
    each = words.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8) & 1
    symbols = each.reshape(len(words), -1, WORD_SIDE, WORD_SIDE, bits) << torch.arange(
        bits, dtype=torch.uint8
    )
    codes = symbols.sum(-1, dtype=torch.uint8).transpose(1, 2)
    return codes.reshape(len(words) * WORD_SIDE, -1).to(torch.int8)


def word_inputs(scheme: Scheme, stored: int) -> int:
    """Inputs of a row whose words have so many ``stored`` bytes."""
    size = WORD_SIDE * scheme.bits
    if stored % size:
        raise CheckpointError(f"rows of {stored} bytes are no whole words of {scheme.name}")
    return stored // size * WORD_SIDE


def row_inputs(scheme: Scheme, stored: int) -> int:
    """Inputs of a row of ``stored`` bytes."""
    kind, size = BLOCK_TYPES[scheme.format], sum(_FIELDS[scheme.format].values())
    if stored % size:
        raise CheckpointError(f"rows of {stored} bytes are no whole blocks of {scheme.name}")
    return stored // size * kind.groups * kind.size


def _packed(values: Tensor, bits: int, width: int) -> Tensor:
    runs = values.reshape(len(values), -1, 8 // bits, width)
    packed = runs[:, :, 0].clone()
    for index in range(1, 8 // bits):
        packed |= runs[:, :, index] << (bits * index)
    return packed.flatten(1)


def _unpacked(packed: Tensor, bits: int, width: int) -> Tensor:
    runs = packed.reshape(len(packed), -1, 1, width)
    parts = [runs >> (bits * index) & ((1 << bits) - 1) for index in range(8 // bits)]
    return torch.cat(parts, 2).flatten(1)


def _pack_scales(name: str, scales: Tensor, low: Tensor) -> Tensor:
    """The bytes of the integers ``scales``, ``low [blocks, groups]``."""
    if name == "q6_k":
        return scales.to(torch.int8).view(torch.uint8)
    if name == "q3_k":
        scales = scales + 32
    whole, minima = scales.to(torch.uint8), low.to(torch.uint8)
    if name == "q2_k":
        return whole | minima << 4
    if name == "q3_k":
        return torch.cat([_packed(whole & 15, 4, 8), _packed(whole >> 4, 2, 4)], 1)
    first, second = torch.split(whole, 4, 1)
    first_low, second_low = torch.split(minima, 4, 1)
    return torch.cat(
        [
            first | second >> 4 << 6,
            first_low | second_low >> 4 << 6,
            second & 15 | (second_low & 15) << 4,
        ],
        1,
    )


def _unpack_scales(name: str, stored: Tensor | None, kind: BlockType, blocks: int) -> tuple[Tensor, Tensor]:
    """The integers, as float32."""
    none = torch.zeros(blocks, kind.groups)
    if stored is None:
        return none + 1, none
    if name == "q6_k":
        return stored.contiguous().view(torch.int8).to(torch.float32), none
    if name == "q2_k":
        return (stored & 15).to(torch.float32), (stored >> 4).to(torch.float32)
    if name == "q3_k":
        whole = _unpacked(stored[:, :8], 4, 8) | _unpacked(stored[:, 8:], 2, 4) << 4
        return whole.to(torch.float32) - 32, none
    first, first_low, rest = torch.split(stored, 4, 1)
    scales = torch.cat([first & 63, rest & 15 | first >> 6 << 4], 1)
    low = torch.cat([first_low & 63, rest >> 4 | first_low >> 6 << 4], 1)
    return scales.to(torch.float32), low.to(torch.float32)


def _counted(values: Tensor, least: int, most: int) -> tuple[Tensor, Tensor]:
    """A float16 unit ``[blocks]`` and the integers from ``least`` to ``most`` that count ``values [blocks,
    groups]`` in it, exactly.
    """
    unit, counts = torch.zeros(len(values)), torch.zeros_like(values)
    peak = values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0]
    left = peak.nonzero()[:, 0]
    for count in (*range(least, 0), *range(most, 0, -1)):  # the largest integer counts the largest scale
        tried = (peak[left] / count).to(torch.float16).to(torch.float32)
        found = (values[left] * torch.where(tried == 0, tried, 1 / tried)[:, None]).round_()
        exact = (found * tried[:, None] == values[left]).all(1)
        exact &= (found >= least).all(1) & (found <= most).all(1)
        unit[left[exact]], counts[left[exact]] = tried[exact], found[exact]
        left = left[~exact]
        if not len(left):
            return unit, counts
    raise ShapeError("a block has scales that count in no unit of GGUF", fix="round it again with k_quants")


def _bytes_of(unit: Tensor) -> Tensor:
    return unit.to(torch.float16)[:, None].view(torch.uint8)


def _float(unit: Tensor) -> Tensor:
    return unit.contiguous().view(torch.float16).to(torch.float32)
