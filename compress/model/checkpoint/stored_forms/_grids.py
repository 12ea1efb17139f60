"""Integers on grids of groups: as floats, and as a ``QTensor`` where a scheme has such a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor, row_tiles
from ....numbers.scheme import BITS, GROUP_SIZES, Scheme


@dataclass(frozen=True)
class Grid:
    """``(codes − zero_point) · scale``: codes ``[out, in]`` int8 of ``bits``, signed; ``scale`` float32 and
    ``zero_point`` int8 ``[out, groups]``, in the same range; ``group_of [in]`` the group of each input, or
    None where they follow one another.
    """

    bits: int
    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    group_of: Tensor | None = None


def in_order(inputs: int, groups: int) -> Tensor:
    """The group of each input where groups of one size follow one another."""
    return torch.arange(inputs) // (inputs // groups)


def dequantized(grid: Grid) -> Tensor:
    """``[out, in]`` float32, exact but for the rounding of one product."""
    inputs, groups = grid.codes.shape[1], grid.scale.shape[1]
    group_of = in_order(inputs, groups) if grid.group_of is None else grid.group_of
    weight = torch.empty(grid.codes.shape)
    for tile in row_tiles(grid.codes):
        difference = grid.codes[tile].to(torch.int16) - grid.zero_point[tile].to(torch.int16)[:, group_of]
        torch.mul(difference, grid.scale[tile][:, group_of], out=weight[tile])
    return weight


def scheme_of(bits: int, inputs: int, zero_point: Tensor, group_of: Tensor | None) -> Scheme | None:
    """The scheme that has such a grid; None where none has: inputs out of order, or groups of another size.
    ``zero_point`` is ``[out, groups]``.
    """
    groups = zero_point.shape[1]
    size = None if groups == 1 else inputs // groups
    if bits not in BITS or inputs % groups or (size is not None and size not in GROUP_SIZES):
        return None
    if group_of is not None and not torch.equal(group_of, in_order(inputs, groups)):
        return None
    return Scheme.model_validate({"bits": bits, "group_size": size, "symmetric": not bool(zero_point.any())})


def as_codes(module: str, scheme: Scheme, grid: Grid) -> QTensor:
    """``grid`` as ``scheme`` has it, weight by weight the same; where a scale is 0 it becomes 1."""
    none, codes, scale = grid.scale == 0, grid.codes, grid.scale
    if bool(none.any()):
        empty = none.repeat_interleave(codes.shape[1] // scale.shape[1], 1)
        zeros = grid.zero_point.repeat_interleave(codes.shape[1] // scale.shape[1], 1)
        codes, scale = torch.where(empty, zeros, codes), torch.where(none, 1.0, scale)
    if not scheme.symmetric and bool((scale < 0).any()):
        raise CheckpointError(f"{module} has scales below 0 beside zero points")
    return QTensor(scheme, codes, scale, None if scheme.symmetric else grid.zero_point)
