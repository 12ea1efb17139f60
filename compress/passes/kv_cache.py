"""Quantized key/value caches: int8 or int4 codes with static scales found on calibration text.

Keys are looked at after rope, as runtimes cache them. The decoder of an encoder–decoder has two caches, of
what was written and of what was read. Scales for each channel of each head follow the outlier channels of
keys (KIVI, Liu et al. 2024, arXiv 2402.02750; KVQuant, Hooper et al. 2024, arXiv 2401.18079); here they are
static and symmetric, the form that ONNX Runtime's attention reads. No weight changes, and the scales belong
to the weights as they are: this is the last pass of a recipe.

``absmax`` spans the largest value, ``percentile`` a fraction of all values (McKinstry et al. 2018, arXiv
1809.04191), and ``mse`` takes from a ladder of spans the one with the smallest squared rounding error (Banner
et al. 2018, arXiv 1810.05723, with the measured distribution in the place of a fitted one). The last two read
a histogram, whose counts do not depend on the order of the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..model.anatomy import Anatomy
from ..model.block_anatomy import Attention, Linear
from ..model.kv_scheme import KVScales, KVScheme, tap
from ..pipeline.algorithm import Fixed, whole_model
from ..pipeline.block import Block, LayerStatus
from ..pipeline.block_pass import BlockPass
from ..pipeline.forward import Batch, StopForward, run_block, until_stopped

# Sees the values ``[groups, n]`` of keys (0) or of values (1).
See = Callable[[int, Tensor], None]


_PERCENTILE = 99.99  # percent of the values that `search: percentile` spans


class KVCache(BlockPass):
    """Options of ``kv_cache``."""

    reads_batches: ClassVar[bool] = True
    fixed: ClassVar[Mapping[str, Fixed]] = whole_model("the caches of all layers have one type") | {
        "percentile": Fixed(_PERCENTILE, "search: mse finds a range of its own for each scale")
    }
    targets: ClassVar[tuple[str, ...]] = ("*",)  # type: ignore[misc]  # not options here
    ignore: ClassVar[tuple[str, ...]] = ()  # type: ignore[misc]
    bits: Literal[8, 4] = Field(8, description="bits of a cached key or value")
    granularity: Literal["per-tensor", "per-channel"] = Field(
        "per-channel", description="one scale per layer, or one per channel of each key/value head"
    )
    search: RangeSearch = Field(
        "mse", description="how the range of the codes is found; percentile spans 99.99 %"
    )

    @property
    def kv_scheme(self) -> KVScheme:
        return KVScheme(bits=self.bits, granularity=self.granularity)

    @property
    def label(self) -> str:
        return self.kv_scheme.name

    def selects(self, linear: Linear) -> bool:
        return linear.role in ("k", "v", "qkv")

    def selected(self, anatomy: Anatomy) -> list[Linear]:
        cached = [part for block in anatomy.blocks for part in anatomy.cached(block)]
        held = {linear.name for part in cached for linear in part.projections}
        return [linear for linear in super().selected(anatomy) if linear.name in held]

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The histograms of keys and values, and what one is evaluated with."""
        rows = 1 if self.granularity == "per-tensor" else sum(linear.out_features for linear in layers)
        return rows * BINS * 4 * 8

    def apply(self, block: Block) -> None:
        for part in block.cached:  # none where states, or what an encoder attends to, stay in float
            self._round(block, part)

    def _round(self, block: Block, attention: Attention) -> None:
        """Find the scales of the cache of ``attention``."""
        absmax: list[Tensor] = [torch.zeros(1), torch.zeros(1)]

        def widen(part: int, values: Tensor) -> None:
            absmax[part] = torch.maximum(absmax[part].to(values.device), values.abs().amax(1))

        self._look(block, attention, widen)
        histograms = [Histogram(largest) for largest in absmax]
        self._look(block, attention, lambda part, values: histograms[part].update(values))
        shape = self.kv_scheme.scale_shape(attention)
        scales = [search(histogram, self.bits, self.search, _PERCENTILE) for histogram in histograms]
        found = (scale.reshape(shape).cpu() for scale in scales)
        block.kv[attention.module] = KVScales(self.kv_scheme, *found)
        for part, histogram, scale in zip(("key", "value"), histograms, scales, strict=True):
            power = power_of(histogram)
            error = float(error_of(histogram, scale, self.bits).sum()) / power if power > 0 else 0.0
            name = f"{attention.module}.{part}_cache"
            block.statuses.append(LayerStatus(name, "kv_cache", self.label, "ok", error, "cache"))

    def _look(self, block: Block, attention: Attention, see: See) -> None:
        """Show ``see`` the keys and values of every real token, grouped as the scales are."""
        module = block.module.get_submodule(block.local(attention.module))
        reads = attention is block.anatomy.cross
        for batch in block.batches():

            def watch(key: Tensor, value: Tensor, batch: Batch = batch) -> tuple[Tensor, Tensor]:
                for part, values in enumerate((key, value)):
                    grouped = self._grouped(values, batch.memory_mask if reads else batch.mask)
                    if grouped.numel():
                        see(part, grouped)
                raise StopForward

            handle = tap(module, watch)
            try:
                until_stopped(partial(run_block, block.module, batch))
            finally:
                handle.remove()

    def _grouped(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """``[groups, n]`` of ``values [batch, kv_heads, tokens, head_dim]`` where ``mask`` is set."""
        rows = values.transpose(1, 2).flatten(0, 1)
        rows = rows if mask is None else rows[mask.reshape(-1)]
        return rows.reshape(1, -1) if self.granularity == "per-tensor" else rows.flatten(1).T


PASS = KVCache


RangeSearch = Literal["absmax", "percentile", "mse"]

BINS = 4096  # over both signs: an 8-bit step at full span is 16 bins
_FACTORS = tuple(1.07 * 0.955**step for step in range(36))  # on the absmax: 1.07 down to a fifth
_TINY = torch.finfo(torch.float32).tiny


class Histogram:
    """Counts of values in equal bins of ``[-absmax, absmax]``, a row for each group.

    ``absmax [groups]`` comes from a first look at the same values; a group that is zero has one bin.
    """

    def __init__(self, absmax: Tensor) -> None:
        self.absmax = absmax.to(torch.float32).clamp(min=_TINY)
        self.counts = torch.zeros(len(absmax), BINS, dtype=torch.int64, device=absmax.device)

    def update(self, values: Tensor) -> None:
        """Count ``values [groups, n]``."""
        bins = (values.to(torch.float32) / self.absmax[:, None] + 1) * (BINS / 2)
        bins = bins.to(torch.int64).clamp_(0, BINS - 1)
        self.counts.scatter_add_(1, bins, torch.ones_like(bins))

    def centres(self) -> Tensor:
        """The middle of each bin ``[groups, bins]``."""
        middle = (torch.arange(BINS, device=self.absmax.device) + 0.5) * (2 / BINS) - 1
        return middle[None, :] * self.absmax[:, None]


def span_to_scale(span: Tensor, bits: int) -> Tensor:
    """The scale whose codes reach from ``-span`` to ``span``: compressed-tensors' rule, span over half the
    steps; 1 for a span of zero."""
    scale = span.to(torch.float32) / ((2**bits - 1) / 2)
    return torch.where(span > _TINY, scale, torch.ones_like(scale))


def search(histogram: Histogram, bits: int, rule: RangeSearch, percentile: float) -> Tensor:
    """The scale ``[groups]`` of each group by ``rule``; ``percentile`` is in percent."""
    if rule == "percentile":
        return span_to_scale(_percentile(histogram, percentile), bits)
    scale = span_to_scale(histogram.absmax, bits)
    if rule == "absmax":
        return scale
    best, least = scale, error_of(histogram, scale, bits)
    for factor in _FACTORS:
        tried = span_to_scale(histogram.absmax * factor, bits)
        error = error_of(histogram, tried, bits)
        better = error < least
        best, least = torch.where(better, tried, best), torch.where(better, error, least)
    return best


def error_of(histogram: Histogram, scale: Tensor, bits: int) -> Tensor:
    """Sum of squared rounding errors ``[groups]`` with ``scale [groups]``, float64."""
    half = 1 << (bits - 1)
    values, wide = histogram.centres(), scale[:, None]
    error = (values / wide).round_().clamp_(-half, half - 1).mul_(wide).sub_(values).square_()
    return (error.to(torch.float64) * histogram.counts).sum(1)


def power_of(histogram: Histogram) -> float:
    """Sum of the squares of all values."""
    return float((histogram.centres().to(torch.float64).square() * histogram.counts).sum())


def _percentile(histogram: Histogram, percentile: float) -> Tensor:
    half = BINS // 2
    magnitudes = histogram.counts[:, half:] + histogram.counts[:, :half].flip(1)
    reached = magnitudes.cumsum(1) >= magnitudes.sum(1, keepdim=True) * (percentile / 100)
    first = reached.to(torch.int8).argmax(1)  # the first bin that reaches it
    return histogram.absmax * (first + 1) / half
