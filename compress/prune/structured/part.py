"""``Part``: a stretch of a block that can lose whole units: the channels of its MLP, or the heads of its
attention.

A unit is a run of input columns of one linear, the ``reader`` (down, or o), with the rows of other linears
that make them. Units fall into ``partitions`` that lose equally many, as the query heads of a key/value
head must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ...model.block_anatomy import BlockAnatomy, Linear
from ...pipeline.block import Block


class Part(Protocol):
    """What the passes know of a part. Counts are of units kept in a block."""

    @property
    def name(self) -> str:
        """``ffn`` or ``heads``."""

    def reader(self, block: BlockAnatomy) -> Linear:
        """The linear whose inputs are the units."""

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        """All linears that shrink, the reader last."""

    def unit(self, block: BlockAnatomy) -> int:
        """Input columns of the reader that one unit has."""

    def partitions(self, block: BlockAnatomy) -> int:
        """Runs of units, equally long, that lose equally many."""

    def makers(self, block: Block) -> list[Tensor]:
        """The rows that make the units, unit after unit: one matrix ``[units · …, hidden]`` a linear."""

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        """How many units may be kept, ascending; the last is all of them."""

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        """The block with ``count`` units."""

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        """Keep ``units`` (ascending) of ``block``, whose reader gets ``weight [out, kept columns]``."""


def columns_of(units: Tensor, size: int) -> Tensor:
    """The columns of ``units``, each of ``size`` columns, in order."""
    return (units.unsqueeze(1) * size + torch.arange(size, device=units.device)).flatten()


def weights_in(linears: Sequence[Linear]) -> int:
    """How many weights ``linears`` have, biases aside."""
    return sum(linear.out_features * linear.in_features for linear in linears)


def keep_rows(block: Block, linear: Linear, rows: Tensor) -> Linear:
    """Keep the outputs ``rows`` of a linear: its weight, bias and mask; returns what it is now."""
    weight, mask = block.weight(linear)[rows], block.masks.get(linear.name)
    if linear.bias:
        name = f"{linear.name}.bias"
        block.set_parameter(name, block.parameter(name)[rows])
    if mask is not None:
        block.masks[linear.name] = mask[rows]
    return _resized(block, replace(linear, out_features=len(rows)), weight)


def keep_columns(block: Block, linear: Linear, columns: Tensor, weight: Tensor) -> Linear:
    """Keep the inputs ``columns`` of a linear, whose weight becomes ``weight [out, columns]``."""
    mask = block.masks.get(linear.name)
    if mask is not None:
        block.masks[linear.name] = mask[:, columns]
    return _resized(block, replace(linear, in_features=len(columns)), weight)


def _resized(block: Block, linear: Linear, weight: Tensor) -> Linear:
    module = block.linears[linear.name]
    module.out_features, module.in_features = linear.out_features, linear.in_features
    block.set_weight(linear, weight.contiguous())
    return linear
