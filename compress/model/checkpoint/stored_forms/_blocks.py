"""Numbers in blocks of rows and columns that share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import row_tiles

Block = tuple[int, int]
_LARGEST = 1 << 20  # rows or columns


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
