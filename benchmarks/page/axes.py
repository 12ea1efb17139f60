"""Axes: where the ticks go and where a value falls.

Linear ticks follow Heckbert, "Nice Numbers for Graph Labels", Graphics Gems, 1990; logarithmic ones take 1, 2
and 5 of each decade, thinned to what fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MARGIN = 0.08
# Values that differ by less, relative to their size, are one: no ticks fit between them.
_SAME = 1e-9


@dataclass(frozen=True)
class Axis:
    """The range ``low`` to ``high`` with its ticks inside."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where ``value`` falls: 0 at the low end, 1 at the high end; zero on a logarithmic axis is the low
        end.
        """
        if self.log and value <= 0:
            return 0.0
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def fit(values: Sequence[float], *, log: bool = False, count: int = 5) -> Axis:
    """An axis that holds ``values`` with a margin and about ``count`` ticks; ``log`` passes over zeros."""
    if log:
        positive = [value for value in values if value > 0] or [1.0]
        lower, upper = math.log(min(positive)), math.log(max(positive))
        pad = MARGIN * (upper - lower) if upper - lower > _SAME else math.log(1.25)
        # Zero lies at the foot: the smallest number keeps well away from it.
        below = max(pad, math.log(4)) if min(values) <= 0 else pad
        low, high = math.exp(lower - below), math.exp(upper + pad)
        return Axis(low, high, True, tuple(log_ticks(low, high, count)))
    low, high = min(values), max(values)
    apart = high - low > _SAME * max(abs(low), abs(high))
    pad = MARGIN * (high - low) if apart else abs(high) * 0.25 or 1.0
    start = 0.0 if 0 <= low <= pad else low - pad
    return Axis(start, high + pad, False, tuple(linear_ticks(start, high + pad, count)))


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 × 10ⁿ inside ``low`` … ``high``, about ``count`` of them, at least two."""
    rough = (high - low) / max(count, 2)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough * (1 - 1e-9))
    while math.floor(high / step) - math.ceil(low / step) < 1:
        step /= 2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """1, 2 and 5 of each decade inside ``low`` … ``high``, thinned to ``count``; a narrow range gets linear
    ticks.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**e for e in range(first, last + 1) for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) <= count + 1:
            break
    ticks = ticks[:: math.ceil(len(ticks) / (count + 1))] if len(ticks) > count + 1 else ticks
    return ticks if len(ticks) >= 3 else [tick for tick in linear_ticks(low, high, count) if tick > 0]
