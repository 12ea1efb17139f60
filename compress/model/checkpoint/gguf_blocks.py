"""Rows in GGUF's types as the bytes that llama.cpp reads: a block after the other, each with its units, its
scales and its codes. A checkpoint of edgepress keeps them as they are.

Bytes hold several codes: of a run of the row, the codes that lie ``width`` apart, the first one lowest.
Products of a unit and an integer are exact in float32, so that the units are found again from the scales.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import CheckpointError, ShapeError
from ...numbers.block_types import BLOCK_TYPES, POINTS, BlockType
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme

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
