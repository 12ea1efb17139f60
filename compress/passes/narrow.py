"""Fewer heads and fewer MLP channels under one budget; what reads them compensates for what goes.

Heads are rows of q, k and v and columns of o (Michel et al. 2019, "Are Sixteen Heads Really Better than
One?", arXiv 1905.10650), channels rows of gate and up and columns of down. By default those go that the
others can replace best (Ling et al. 2024, SlimGPT, arXiv 2412.18110), and how many in each block is solved
from what the model loses without them (Molchanov et al. 2019, arXiv 1906.10771): with both ``parts`` the
budget goes to where the model loses least, be it attention or MLP.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..prune.structured.structured_pruning import StructuredPruning
from ..prune.structured.units import ChannelUnits, HeadUnits, PrunablePart, Unit


class Narrow(StructuredPruning):
    """Options of ``narrow``."""

    text: ClassVar[str] = "to measure or repair"
    parts: tuple[Literal["attention", "mlp"], ...] = Field(
        ("attention", "mlp"),
        min_length=1,
        description="what gets narrower: attention loses heads, mlp channels",
    )
    multiple: int = Field(
        32, ge=1, description="MLP widths are multiples of it; groups of a later pass divide it"
    )
    unit: Unit = Field(
        "groups",
        description="heads go as groups, key/value heads with their queries, or as queries, as many from "
        "every group",
    )

    @property
    def cut_parts(self) -> tuple[PrunablePart, ...]:
        known: dict[str, PrunablePart] = {
            "attention": HeadUnits(self.unit),
            "mlp": ChannelUnits(self.multiple),
        }
        return tuple(part for name, part in known.items() if name in self.parts)


PASS = Narrow
