"""Fewer heads and fewer MLP channels at once, under one budget: the passes ``heads`` and ``ffn`` together.

With solved widths the budget goes to where the model loses least, be it attention or MLP.
"""

from __future__ import annotations

from pydantic import Field

from ..prune.structured.channel_units import Channels
from ..prune.structured.head_units import Heads, Unit
from ..prune.structured.part import Part
from ..prune.structured.structured_pruning import StructuredPruning


class Narrow(StructuredPruning):
    """Options of ``narrow``."""

    multiple: int = Field(32, ge=1, description="MLP widths are multiples of it")
    unit: Unit = Field(
        "groups", description="groups: key/value heads with their queries; queries: as many from every group"
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        return Heads(self.unit), Channels(self.multiple)


PASS = Narrow
