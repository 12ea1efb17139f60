"""Round to nearest: each weight goes to the closest point of its group's grid. No data, seconds, the
baseline.

W8A8 takes the scale of a token's activations at run time, absmax / 127.5 of its row (token-wise as in
ZeroQuant, Yao et al. 2022, arXiv 2206.01861): an outlier token hurts only itself.
``search: minmax`` is the plain rule (absmax / 7.5 at 4 bits); ``mse`` picks the span that rounds best. Of the
calibration text only schemes with static activations take something: how large these become.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ..model.block_anatomy import Linear
from ..numbers.block_types import refuse_without_zero
from ..numbers.fake_quant import input_scale_of
from ..numbers.grid import Search, grids_tried, largest_weight, quantize
from ..numbers.scheme import RoundedSchemeOption, Scheme
from ..pipeline.block import Block
from ..pipeline.block_pass import BlockPass

_W8A8 = Scheme.parse("W8A8")


class Rtn(BlockPass):
    """Options of ``rtn``."""

    text: ClassVar[str] = "for static activations"
    scheme: RoundedSchemeOption
    search: Search = "mse"

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def called(self, name: str) -> str:
        """Nothing beside the scheme of ``--scheme W8A8``, which needs no other pass."""
        return "" if self.scheme == _W8A8 else name

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("absmax",) if self.scheme.calibrated else ()

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Nothing: it works in tiles."""
        return 0

    @property
    def roundings(self) -> int:
        return grids_tried(self.scheme, self.search)

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            # Runtimes join the layers that read the same inputs into one: their scales must count alike.
            largest = max((largest_weight(block.weight(linear)) for linear in layers), default=0.0)
            for linear in layers:
                self._quantize(block, linear, largest)

    def _quantize(self, block: Block, linear: Linear, largest: float) -> None:
        weight, mask = block.weight(linear), block.masks.get(linear.name)
        if mask is not None:
            refuse_without_zero(linear.name, self.scheme)
        tensor = quantize(
            weight, self.scheme, self.search, mask=mask, absmax=largest, tick=block.tick_rounded
        )
        if self.scheme.calibrated:
            tensor = replace(
                tensor, input_scale=input_scale_of(self.scheme, block.statistic(linear, "absmax"))
            )
        block.quantize(linear, tensor, "rtn")


PASS = Rtn
