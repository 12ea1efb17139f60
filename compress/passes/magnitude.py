"""Magnitude pruning: the smallest weights of each layer become zero (Han et al. 2015, arXiv 1506.02626).

No data. With ``scope: row`` every output channel loses the same share instead of the layer as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.block_anatomy import Linear
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block, LayerStatus, weight_error
from ..prune.sparsity import Scope
from ..prune.unstructured_pruning import Pruning


class Magnitude(Pruning):
    """Options of ``magnitude``."""

    scope: Scope = "layer"

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Magnitudes, sorted magnitudes, and their eight-byte positions."""
        return 4 * max(float_bytes(linear) for linear in layers)

    def apply(self, block: Block) -> None:
        for linear in filter(self.selects, block.anatomy.linears()):
            weight = block.weight(linear)
            change = self.prune(block, linear, weight.abs(), self.scope)
            error = weight_error(change, weight)
            block.statuses.append(LayerStatus(linear.name, "magnitude", self.label, "ok", error, "weight"))


PASS = Magnitude
