"""SmoothQuant: the peaks of the activations move into the weights, so that both survive 8 bits.

Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
Models", arXiv 2211.10438. Each input channel is divided by ``max|x|^α / max|w|^(1−α)`` and its weights
multiplied by it; the division is folded into the norm or linear that feeds the layer. Without ``alpha``,
each link of a block gets its own, or no factors at all, whichever leaves the least error of the integer
product on a sample of the calibration tokens. Activations have one dynamic scale per token, as in ``W8A8``,
or one for all tokens that calibration finds: ``W8A8_STATIC``.

``quantize: false`` only folds, for a quantization that follows: ``gptq`` with ``scheme: W8A8``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..model.block_anatomy import Linear
from ..numbers.fake_quant import input_scale_of, rounding_of
from ..numbers.grid import quantize
from ..numbers.scheme import AnySchemeOption, Scheme
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block, LayerStatus
from ..pipeline.block_pass import BlockPass
from ..solve.folding import (
    Found,
    fold,
    foldable_links,
    largest_weights,
    migrations,
    readers_by_tokens,
    sampling_stride,
    search,
)
from ..solve.links import Link

_ALPHAS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class _Sampled:
    """Some ``inputs [tokens, in]`` of layers, some ``rows [rows, in]`` of their weights, and the ``peaks
    [in]`` of all inputs.
    """

    inputs: Tensor
    rows: Tensor
    peaks: Tensor

    def error(self, scheme: Scheme, wide: Tensor) -> float:
        """The squared error of the product as ``scheme`` rounds both, the inputs divided by ``wide [in]``."""
        rounded = quantize(self.rows * wide, scheme).dequantize()
        rounding = rounding_of(scheme, input_scale_of(scheme, self.peaks / wide))
        product = rounding(self.inputs / wide) @ rounded.T
        return float((product - self.inputs @ self.rows.T).square().sum())


class Smoothquant(BlockPass):
    """Options of ``smoothquant``."""

    needs = ("absmax", "sample")
    scheme: AnySchemeOption = Scheme.parse("W8A8")
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="migration strength α, how much of the activations' peaks moves; null: searched",
    )
    quantize: bool = Field(True, description="whether it rounds too; false only folds the factors")

    @model_validator(mode="after")
    def _with_activations(self) -> Any:
        if self.scheme.activations is None or self.scheme.format != "int":
            raise ValueError(f"{self.scheme.name} has no int8 activations: nothing to smooth")
        return self

    @property
    def weight_scheme(self) -> Scheme | None:
        return self.scheme if self.quantize else None

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The weights stacked, the sample twice over, and what rounding takes."""
        stacked = sum(float_bytes(linear) for linear in layers)
        return stacked + 8 * 512 * layers[0].in_features + super().working_bytes(layers)

    def apply(self, block: Block) -> None:
        details: dict[str, str] = {}
        spreads: dict[str, Tensor] = {}
        for link, readers in foldable_links(block, self.selects):
            found = self.factors(block, link, readers)
            if found is not None:
                if found.label != "1":
                    spread = fold(block, link, found.factors)
                    spreads |= {reader.name: spread for reader in readers}
                details |= {reader.name: f"factors {found.label}" for reader in readers}
        for linear in filter(self.selects, block.anatomy.linears()):
            peaks = block.statistic(linear, "absmax")
            if linear.name in spreads:
                peaks = peaks / spreads[linear.name]
            self._finish(block, linear, peaks, details.get(linear.name, "not scaled: nothing feeds it alone"))

    def factors(self, block: Block, link: Link, readers: list[Linear]) -> Found | None:
        """The factors of a link, or None where the statistics are of no use."""
        groups = [group for group in readers_by_tokens(block, readers) if group.fraction]
        seen = [[block.statistic(group.linears[0], name) for name in self.needs] for group in groups]
        if not seen:
            return None
        peaks = torch.stack([peaks for peaks, _ in seen]).amax(0)
        if not bool(torch.isfinite(peaks).all()) or not bool((peaks > 0).any()):
            return None
        largest = link.peaks(largest_weights(block, readers))
        alphas = _ALPHAS if self.alpha is None else (self.alpha,)
        tried = (
            (label, link.exact(factors)) for label, factors in migrations(link.peaks(peaks), largest, alphas)
        )
        if self.alpha is not None:
            _, (label, factors) = tried
            return Found(factors, label, 1.0)
        stride = sampling_stride(readers, len(groups))
        parts = [
            (_Sampled(sample, group.rows(block, stride), peaks), group.fraction / max(len(sample), 1))
            for group, (peaks, sample) in zip(groups, seen, strict=True)
        ]
        return search(
            tried,
            lambda factors: sum(
                share * part.error(self.scheme, link.spread(factors)) for part, share in parts
            ),
        )

    def _finish(self, block: Block, linear: Linear, peaks: Tensor, detail: str) -> None:
        """Quantize a layer whose inputs are at most ``peaks [in]``, and say how it fared."""
        if not self.quantize:
            status = LayerStatus(linear.name, "smoothquant", "smooth", "ok", 0.0, "weight", detail)
            block.statuses.append(status)
            return
        weight, mask = block.weight(linear), block.masks.get(linear.name)
        tensor = quantize(weight, self.scheme, mask=mask, tick=block.tick_rounded)
        tensor = replace(tensor, input_scale=input_scale_of(self.scheme, peaks))
        block.quantize(linear, tensor, "smoothquant", detail=detail)


PASS = Smoothquant
