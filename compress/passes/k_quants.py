"""K-quants: GGUF's own types, for llama.cpp, by a search of ours for their scales and minima.

``Q2_K`` (2.6 bits a weight), ``Q3_K`` (3.4), ``Q4_K`` (4.5), ``Q5_K`` (5.5) and ``Q6_K`` (6.6) have blocks of
256 inputs, in which scales and minima of groups of 16 or 32 are small integers, ``IQ4_NL`` (4.5) uneven
points and groups of 32. The types are those of llama.cpp (Kawrakow 2023, pull request 1684 of
github.com/ggml-org/llama.cpp); the search is :mod:`edgepress.compress.numbers.super_blocks`. With calibration
text an error of a channel weighs as much as the mean square of its input, the diagonal of the Gram; of an
expert of a mixture that is the mean over the tokens that come to it.

``edgepress export --format gguf`` writes what the pass found, bit by bit. No other client opens the
checkpoint.
"""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ..model.block_anatomy import Linear
from ..numbers.block_types import refuse_without_zero
from ..numbers.grid import quantize
from ..numbers.scheme import GgufSchemeOption, Scheme
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass


class KQuants(BlockPass):
    """Options of ``k_quants``."""

    text: ClassVar[str] = "for importance"
    scheme: GgufSchemeOption
    importance: bool = Field(
        True, description="whether errors weigh as inputs are large, by calibration text"
    )

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("meansquare",) if self.importance else ()

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Nothing: it works in tiles."""
        return 0

    def apply(self, block: Block) -> None:
        for linear in filter(self.selects, block.anatomy.linears()):
            if linear.name in block.masks:
                refuse_without_zero(linear.name, self.scheme)
            power = block.statistic(linear, "meansquare") if self.importance else None
            usable = power is not None and bool(power.isfinite().all()) and bool((power > 0).any())
            weighed = power if usable else None
            tensor = quantize(block.weight(linear), self.scheme, importance=weighed, tick=block.tick_rounded)
            detail = "" if usable or power is None else "no input of use: all channels weigh the same"
            block.quantize(linear, tensor, "k_quants", "ok" if not detail else "fallback-plain", detail)


PASS = KQuants
