"""Fewer channels in the MLPs: rows of gate and up and columns of down go, and down makes up for them.

By default the channels that go are those that the others can replace best (Ling et al. 2024, SlimGPT, arXiv
2412.18110), and how many go in each block is solved from what the model loses without them (Molchanov et al.
2019, arXiv 1906.10771).
"""

from __future__ import annotations

from pydantic import Field

from ..prune.structured.channel_units import Channels
from ..prune.structured.part import Part
from ..prune.structured.structured_pruning import StructuredPruning


class Ffn(StructuredPruning):
    """Options of ``ffn``."""

    multiple: int = Field(
        32, ge=1, description="widths are multiples of it; groups of a later pass divide it"
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Channels(self.multiple),)


PASS = Ffn
