"""Round to nearest: each weight goes to the closest point of its group's grid. No data, seconds, the
baseline.

``search: minmax`` is the plain rule (absmax / 7.5 at 4 bits); ``mse`` picks the span that rounds best.
"""

from __future__ import annotations

from ..algorithm import BlockPass, SchemeOption
from ..block import Block, LayerStatus, weight_error
from ..grid import Search, quantize
from ..scheme import Scheme


class Rtn(BlockPass):
    """Options of ``rtn``."""

    scheme: SchemeOption
    search: Search = "mse"

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def apply(self, block: Block) -> None:
        for linear in block.anatomy.linears():
            if self.selects(linear):
                weight = block.weight(linear)
                tensor = quantize(weight, self.scheme, self.search, mask=block.masks.get(linear.name))
                error = weight_error(tensor.dequantize() - weight, weight)
                block.set_quantized(linear, tensor)
                block.statuses.append(
                    LayerStatus(linear.name, "rtn", self.scheme.name, "ok", error, "weight")
                )


PASS = Rtn
