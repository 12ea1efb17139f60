"""Pruning by a score: the lowest of each layer become zero, and what is kept does not change.

``score: magnitude`` is the size of a weight (Han et al. 2015, arXiv 1506.02626) and needs no data. ``score:
wanda`` is ``|W| · ‖x‖₂``, what a weight moves its output (Sun et al. 2023, "A Simple and Effective Pruning
Approach for Large Language Models", arXiv 2306.11695): the norm of an input channel is taken over the
calibration tokens, one pass and no matrix. A channel that never fired counts by its weights alone, behind
all that did.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ..model.block_anatomy import Linear
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block, LayerStatus, weight_error
from ..prune.unstructured import Scope, UnstructuredPruning

# Each as in its paper: magnitudes compare across a layer, outputs' errors within the row that they belong to.
_SCOPE: dict[str, Scope] = {"magnitude": "layer", "wanda": "row"}


class Prune(UnstructuredPruning):
    """Options of ``prune``."""

    text: ClassVar[str] = "for wanda"
    score: Literal["magnitude", "wanda"] = Field(
        description="magnitude: size of the weight, no text needed; wanda: times the norm of its input"
    )
    scope: Scope | None = Field(
        None,
        description="whether a layer or each row (output channel) loses the fraction; null: layer of "
        "magnitude, row of wanda",
    )

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("meansquare",) if self.score == "wanda" else ()

    def called(self, name: str) -> str:
        return self.score

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Scores, sorted scores, and their eight-byte positions."""
        return 4 * max(float_bytes(linear) for linear in layers)

    def apply(self, block: Block) -> None:
        for linear in filter(self.selects, block.anatomy.linears()):
            weight = block.weight(linear)
            norm, status, detail = self._norm(block, linear)
            change = self.prune(block, linear, weight.abs() * norm, self.scope or _SCOPE[self.score])
            # With norms, the error of the output as if the input channels were independent.
            error = weight_error(change * norm, weight * norm)
            block.statuses.append(
                LayerStatus(linear.name, "prune", self.label, status, error, "weight", detail)
            )

    def _norm(self, block: Block, linear: Linear) -> tuple[Tensor, str, str]:
        """What sizes of weights are multiplied by, ``[in]`` or a 1 for all; the status and its detail."""
        one = block.weight(linear).new_ones(())
        if self.score == "magnitude":
            return one, "ok", ""
        mean_square = block.statistic(linear, "meansquare")
        if not bool(mean_square.isfinite().all() & (mean_square > 0).any()):
            detail = "the inputs are all zero or not finite on the calibration text"
            return one, "fallback-magnitude", detail
        return mean_square.sqrt(), "ok", ""


PASS = Prune
