"""The channels of an MLP as units: a row of up (and of gate, where there is one) and a column of down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...model.block_anatomy import BlockAnatomy, Linear
from ...pipeline.block import Block
from .part import keep_columns, keep_rows

MOST_CHOICES = 64


@dataclass(frozen=True)
class Channels:
    """Widths are multiples of ``multiple``, so that kernels and quantization groups fit."""

    multiple: int
    name: str = "ffn"

    def reader(self, block: BlockAnatomy) -> Linear:
        return block.mlp.down

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        return (*block.mlp.projections, block.mlp.down)

    def unit(self, block: BlockAnatomy) -> int:
        return 1

    def partitions(self, block: BlockAnatomy) -> int:
        return 1

    def makers(self, block: Block) -> list[Tensor]:
        mlp = block.anatomy.mlp
        weights = [block.weight(linear) for linear in mlp.projections]
        return weights if mlp.gate_up is None else list(weights[0].chunk(2))

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        """At most about ``MOST_CHOICES`` multiples, and the whole width."""
        width = block.mlp.up.out_features
        step = self.multiple * -(-width // (self.multiple * MOST_CHOICES))
        return [*range(step, width, step), width]

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        mlp = block.mlp
        gate = mlp.gate and replace(mlp.gate, out_features=count)
        up, down = replace(mlp.up, out_features=count), replace(mlp.down, in_features=count)
        both = mlp.gate_up and replace(mlp.gate_up, out_features=2 * count)
        return replace(block, mlp=replace(mlp, gate=gate, up=up, down=down, gate_up=both))

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        before = block.anatomy
        width = before.mlp.up.out_features
        rows = units if before.mlp.gate_up is None else torch.cat([units, width + units])
        for linear in before.mlp.projections:
            keep_rows(block, linear, rows)
        keep_columns(block, before.mlp.down, units, weight)
        block.anatomy = self.narrowed(before, len(units))
