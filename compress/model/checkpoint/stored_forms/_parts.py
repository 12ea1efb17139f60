"""The tensors that a form stores a linear in, looked at by their headers before any of them is read.

Numbers in blocks of rows and columns that share a scale.

Integers on grids of groups: as floats, and as a ``QTensor`` where a scheme has such a grid.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor, row_tiles
from ....numbers.scheme import BITS, GROUP_SIZES, Scheme
from ..header import TensorEntry

WORD = 32  # bits
WORDS = ("I32", "U32")
FLOATS = ("F16", "BF16", "F32")
_LOW = (1 << WORD) - 1
Block = tuple[int, int]
_LARGEST = 1 << 20  # rows or columns


class Parts:
    """The stored tensors of the linear ``module``.

    Attributes:
        names: of those that were taken, in that order.
    """

    def __init__(self, module: str, tensors: Mapping[str, TensorEntry]) -> None:
        self.module, self.names = module, list[str]()
        self._tensors = tensors

    def __contains__(self, part: str) -> bool:
        return f"{self.module}.{part}" in self._tensors

    def take(self, part: str, types: tuple[str, ...], rank: int | None = 2) -> tuple[int, ...]:
        """The shape of the tensor ``part``, of ``rank`` dimensions, none of them 0."""
        name = f"{self.module}.{part}"
        if name not in self._tensors:
            raise CheckpointError(f"{self.module} has no {part}, which its form needs")
        entry = self._tensors[name]
        if entry.dtype not in types or 0 in entry.shape or rank not in (None, len(entry.shape)):
            wanted = "" if rank is None else f" with {rank} dimensions"
            raise CheckpointError(
                f"tensor {name!r} is {entry.dtype} of shape {list(entry.shape)}, "
                f"not {' or '.join(types)}{wanted}"
            )
        self.names.append(name)
        return entry.shape

    def entry(self, part: str) -> TensorEntry:
        """What the header says of a ``part`` that is there."""
        return self._tensors[f"{self.module}.{part}"]

    def refuse(self, why: str) -> CheckpointError:
        """The error for parts that do not fit each other."""
        shapes = ", ".join(
            f"{name.removeprefix(self.module + '.')} {list(self._tensors[name].shape)}" for name in self.names
        )
        return CheckpointError(f"{self.module} is stored in parts that do not fit: {shapes}", why=why)


def modules_with(part: str, tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """The modules that have a stored tensor ``part``, in the order of the file."""
    for name in tensors:
        module, _, last = name.rpartition(".")
        if last == part and module:
            yield module


def whole(settings: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The whole number ``key`` of quantization_config."""
    value = settings.get(key, default)
    if type(value) is not int:
        raise CheckpointError(f"quantization_config has {key} {value!r:.80}, which is no whole number")
    return value


def unsigned(words: Tensor) -> Tensor:
    """32-bit ``words`` as int64 from 0 on."""
    return words.to(torch.int64) & _LOW


def block_of(settings: Mapping[str, Any], key: str) -> Block | None:
    """The rows and columns of a block that ``settings`` give as ``key``; None where they give none."""
    value = settings.get(key)
    if value is None:
        return None
    sizes = value if isinstance(value, list) else []
    if len(sizes) != 2 or any(type(one) is not int or not 1 <= one <= _LARGEST for one in sizes):
        raise CheckpointError(f"quantization_config has {key} {value!r:.80}, which is no block")
    return sizes[0], sizes[1]


def scales_fit(scale: tuple[int, ...], shape: tuple[int, int], block: Block) -> bool:
    """Whether scales of the shape ``scale`` are one for each ``block`` of a matrix of ``shape``."""
    return scale == (-(-shape[0] // block[0]), -(-shape[1] // block[1]))


def block_scaled(codes: Tensor, scale: Tensor, block: Block, zero: Tensor | None = None) -> Tensor:
    """``codes [out, in]``, less their ``zero``, times the scales ``[blocks of rows, blocks of columns]``,
    float32.
    """
    rows, columns = codes.shape
    row_of, column_of = torch.arange(rows) // block[0], torch.arange(columns) // block[1]
    weight, scale = torch.empty(rows, columns), scale.to(torch.float32)
    for tile in row_tiles(codes):
        values = codes[tile].to(torch.float32)
        if zero is not None:
            values = values - zero.to(torch.float32)[row_of[tile]][:, column_of]
        torch.mul(values, scale[row_of[tile]][:, column_of], out=weight[tile])
    return weight


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
