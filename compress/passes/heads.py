"""Fewer attention heads: rows of q, k and v and columns of o go, and o makes up for them.

Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, for what goes; repaired
as in Ling et al. 2024, SlimGPT, arXiv 2412.18110.
"""

from __future__ import annotations

from pydantic import Field

from ..prune.structured.head_units import Heads as HeadsOf
from ..prune.structured.head_units import Unit
from ..prune.structured.part import Part
from ..prune.structured.structured_pruning import StructuredPruning


class Heads(StructuredPruning):
    """Options of ``heads``."""

    unit: Unit = Field(
        "groups", description="groups: key/value heads with their queries; queries: as many from every group"
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        return (HeadsOf(self.unit),)


PASS = Heads
