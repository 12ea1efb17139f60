"""W8A8: int8 weights with one scale per output channel, int8 activations with one dynamic scale per token.

The activation scale is absmax / 127.5 of each token's row, taken at run time (as in ZeroQuant's token-wise
scheme, Yao et al. 2022, arXiv 2206.01861), so that no data is needed and an outlier token hurts only itself.
The products run in integers.
"""

from __future__ import annotations

from ..numbers.grid import Search, quantize
from ..numbers.scheme import Scheme
from ..pipeline.algorithm import BlockPass
from ..pipeline.block import Block, LayerStatus, weight_error

SCHEME = Scheme.parse("W8A8")


class W8A8(BlockPass):
    """Options of ``w8a8``."""

    search: Search = "mse"

    @property
    def weight_scheme(self) -> Scheme:
        return SCHEME

    def apply(self, block: Block) -> None:
        for linear in block.anatomy.linears():
            if self.selects(linear):
                weight = block.weight(linear)
                tensor = quantize(weight, SCHEME, self.search, mask=block.masks.get(linear.name))
                error = weight_error(tensor.dequantize() - weight, weight)
                block.set_quantized(linear, tensor)
                block.statuses.append(LayerStatus(linear.name, "w8a8", SCHEME.name, "ok", error, "weight"))


PASS = W8A8
