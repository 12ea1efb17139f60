"""``GroupSolving``: what passes have in common that solve the layers with the same inputs together.

The layers of a group are solved from statistics of their inputs: those that the block came with, or those
collected when the groups before it in the block are done (``sequential``). A ``correction`` makes up for the
error of earlier layers (:mod:`.corrected_target`), each once, and so always from inputs collected anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from torch import Tensor

from ..model.block_anatomy import Linear
from ..pipeline.algorithm import BlockPass
from ..pipeline.block import Block
from ..pipeline.statistics import STATISTIC_BYTES
from .corrected_target import HALVES

Inputs = Mapping[str, Tensor]


class GroupSolving(BlockPass):
    """Options of every such pass."""

    damping: float = Field(
        0.01, gt=0, le=1, description="share of the mean Gram diagonal added before factoring"
    )
    correction: float = Field(
        0.0, ge=0, le=1, description="share of the error of earlier layers that is made up for; true is 1"
    )
    sequential: bool = Field(
        False, description="collect the inputs of each group in a block anew; correction always does"
    )

    @property
    def statistics(self) -> tuple[str, ...]:
        """What a group of layers is solved from."""
        return ("gram", *HALVES) if self.correction else ("gram",)

    @property
    def collects_anew(self) -> bool:
        """Whether the inputs of each group are looked at when those before it in the block are done."""
        return self.sequential or self.correction > 0

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.collects_anew else self.statistics

    @property
    def reads_batches(self) -> bool:  # type: ignore[override]
        return self.collects_anew

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.correction > 0

    def statistics_bytes(self, layers: Sequence[Linear]) -> int:
        """Of the statistics of one group, where they are collected here."""
        wide = layers[0].in_features
        return sum(STATISTIC_BYTES[name](wide) for name in self.statistics) if self.collects_anew else 0

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            if layers:
                collected = block.collect(layers, self.statistics) if self.collects_anew else block.statistics
                self.solve_group(block, layers, collected[layers[0].name])

    def solve_group(self, block: Block, layers: list[Linear], inputs: Inputs) -> None:
        """Change ``layers``, whose inputs have the statistics ``inputs``, and leave a status for each."""
        raise TypeError(f"{type(self).__name__} does not define solve_group")
