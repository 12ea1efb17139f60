"""The range of a cache's codes: from the values seen in calibration to one scale for each group of them.

``absmax`` spans the largest value. ``percentile`` spans that fraction of all values (McKinstry et al. 2018,
"Discovering Low-Precision Networks", arXiv 1809.04191). ``mse`` takes from a ladder of spans the one with the
smallest squared rounding error (Banner et al. 2018, "Post training 4-bit quantization of convolutional
networks for rapid-deployment", arXiv 1810.05723, with the measured distribution in the place of a fitted
one). The last two read a histogram, whose counts do not depend on the order of the batches.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
