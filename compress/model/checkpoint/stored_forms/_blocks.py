"""Numbers in blocks of rows and columns that share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import row_tiles

Block = tuple[int, int]


def block_of(settings: Mapping[str, Any], key: str) -> Block | None:
    """The rows and columns of a block that ``settings`` give as ``key``; None where they give none.

    Raises:
        CheckpointError: they are no two positive numbers.
    """
    value = settings.get(key)
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or any(type(one) is not int or one < 1 for one in value)
    ):
        raise CheckpointError(f"quantization_config has {key} {value!r:.80}, which is no block")
    return value[0], value[1]


def scales_fit(scale: tuple[int, ...], shape: tuple[int, int], block: Block) -> bool:
    """Whether scales of the shape ``scale`` are one for each ``block`` of a matrix of ``shape``."""
    return scale == (-(-shape[0] // block[0]), -(-shape[1] // block[1]))


def block_scaled(codes: Tensor, scale: Tensor, block: Block) -> Tensor:
    """``codes [out, in]`` times the scales ``[blocks of rows, blocks of columns]``, float32."""
    rows, columns = codes.shape
    row_of, column_of = torch.arange(rows) // block[0], torch.arange(columns) // block[1]
    weight, scale = torch.empty(rows, columns), scale.to(torch.float32)
    for tile in row_tiles(codes):
        torch.mul(codes[tile].to(torch.float32), scale[row_of[tile]][:, column_of], out=weight[tile])
    return weight
