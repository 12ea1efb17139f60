"""Wanda: the weights that move each output least become zero, judged by ``|W| · ‖x‖₂`` within each row.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695.
The norm of an input channel is taken over the calibration tokens, one pass and no matrix; what is kept is not
changed. A channel that never fired counts by its weights alone, behind all that did.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..model.block_anatomy import Linear
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block, LayerStatus, weight_error
from ..prune.sparsity import Scope
from ..prune.unstructured_pruning import Pruning


def scores(weight: Tensor, mean_square: Tensor) -> Tensor:
    """``|W| · ‖x‖₂ [out, in]`` up to a factor; ``weight [out, in]``, ``mean_square [in]`` of the inputs."""
    return weight.abs() * mean_square.sqrt()


class Wanda(Pruning):
    """Options of ``wanda``."""

    needs = ("meansquare",)
    scope: Scope = "row"

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Scores, sorted scores, and their eight-byte positions."""
        return 4 * max(float_bytes(linear) for linear in layers)

    def apply(self, block: Block) -> None:
        for linear in filter(self.selects, block.anatomy.linears()):
            weight = block.weight(linear)
            mean_square = block.statistic(linear, "meansquare")
            status, detail = "ok", ""
            if not bool(mean_square.isfinite().all() & (mean_square > 0).any()):
                mean_square, status = mean_square.new_ones(()), "fallback-magnitude"
                detail = "the inputs are all zero or not finite on the calibration text"
            change = self.prune(block, linear, scores(weight, mean_square), self.scope)
            # What a change of a weight moves on average, as if the input channels were independent.
            error = weight_error(change * mean_square.sqrt(), weight * mean_square.sqrt())
            block.statuses.append(
                LayerStatus(linear.name, "wanda", self.label, status, error, "weight", detail)
            )


PASS = Wanda
