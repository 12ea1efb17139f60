"""Codes as the words and bytes of a checkpoint, and back.

Integers: signed codes as a dense little-endian bit stream in int32 words. A code is stored as
``code + 2^(bits−1)``, least significant bit first, one row after another; 32 codes fill exactly ``bits``
words, so that 3-bit codes cross words, and rows are padded with zero bits to whole words. Four-bit floats
(E2M1): two codes a byte, the first one low, bit 3 the sign. Powers of two (E8M0): the exponent plus 127 in a
byte.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....errors import CheckpointError

_CODES_AT_ONCE = 1 << 20  # each is eight bytes wide while it is worked on
_POINTS = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12], dtype=torch.int8)  # of E2M1, doubled, by index
_BIAS, _NAN = 127, 255  # of E8M0


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
