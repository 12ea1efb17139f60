"""Matrices of which only what is not 0 is stored, with a mask of bits, lowest first."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from .....errors import CheckpointError
from ..coded_weights import Read
from ._parts import FLOATS, Parts

SPARSE = ("compressed",)
_WITHIN = ("", "weight.")  # how a module's parts begin: 2:4 forms leave the word out


def take_sparse(parts: Parts, read: Read) -> tuple[int, int] | None:
    """The shape of the matrix; None where it is stored whole."""
    start = next((start for start in _WITHIN if f"{start}compressed" in parts), None)
    if start is None:
        return None
    parts.take(f"{start}compressed", (*FLOATS, "F8_E4M3", "I8"), None)
    mask = parts.take(f"{start}bitmask", ("U8",))
    parts.take(f"{start}shape", ("I64", "I32"), None)
    sizes = [int(size) for size in read(parts.names[-1]).flatten()[:3]]
    if f"{start}row_offsets" in parts:
        parts.take(f"{start}row_offsets", ("I64", "I32"), 1)
    if len(sizes) != 2 or min(sizes) < 1 or mask != (sizes[0], -(-sizes[1] // 8)):
        raise parts.refuse(f"its shape says {sizes}")
    return sizes[0], sizes[1]


def sparse_codes(module: str, names: Collection[str], shape: tuple[int, int], read: Read) -> Tensor:
    """``[out, in]`` in the type of what is stored."""
    start = next(start for start in _WITHIN if f"{start}bitmask" in names)
    packed, values = read(f"{module}.{start}bitmask"), read(f"{module}.{start}compressed").flatten()
    bits = torch.stack([packed >> index & 1 for index in range(8)], -1).flatten(1)
    mask = bits[:, : shape[1]].to(torch.bool)
    if int(mask.sum()) != len(values):
        raise CheckpointError(f"{module} has {len(values)} values where its mask has {int(mask.sum())}")
    plain = values.view(torch.uint8) if values.element_size() == 1 else values
    dense = torch.zeros(shape, dtype=plain.dtype)
    dense[mask] = plain
    return dense.view(values.dtype)
