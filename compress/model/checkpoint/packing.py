"""compressed-tensors' ``pack-quantized`` bit layout: signed codes as a dense little-endian bit stream in
int32 words.

A code is stored as ``code + 2^(bits−1)``, least significant bit first, one row after another; 32 codes fill
exactly ``bits`` words, so that 3-bit codes cross words. Rows are padded with zero bits to whole words.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CODES_AT_ONCE = 1 << 20  # each is eight bytes wide while it is worked on


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack ``codes [rows, columns]`` int8 into int32 ``[rows, ceil(columns · bits / 32)]``."""
    rows = max(1, _CODES_AT_ONCE // codes.shape[1])
    return torch.cat([_pack_rows(part, bits) for part in torch.split(codes, rows)])


def _pack_rows(codes: Tensor, bits: int) -> Tensor:
    rows, columns = codes.shape
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


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Inverse of :func:`pack`: int8 codes ``[rows, columns]`` from int32 ``words``."""
    rows = max(1, _CODES_AT_ONCE // columns)
    return torch.cat([_unpack_rows(part, bits, columns) for part in torch.split(words, rows)])


def _unpack_rows(words: Tensor, bits: int, columns: int) -> Tensor:
    rows = words.shape[0]
    groups = -(-columns // 32)
    stream = words.to(torch.int64) & 0xFFFFFFFF
    stream = torch.nn.functional.pad(stream, (0, groups * bits - words.shape[1])).view(rows, groups, bits)
    codes = torch.empty(rows, groups, 32, dtype=torch.int64, device=words.device)
    for index in range(32):
        word, offset = divmod(index * bits, 32)
        value = stream[..., word] >> offset
        if offset + bits > 32:
            value = value | (stream[..., word + 1] << (32 - offset))
        codes[..., index] = value & ((1 << bits) - 1)
    return (codes.view(rows, -1)[:, :columns] - (1 << (bits - 1))).to(torch.int8).contiguous()
