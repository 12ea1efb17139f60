"""Two arms, one question: faster, slower, the same, or too noisy to say.

The two blocks of a pair ran one after the other, so their ratio is free of slow drift. The verdict is
read off a bootstrap interval over pairs, never over iterations, which are correlated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from .intervals import bootstrap_ci

MIN_PAIRS = 5
# An interval that contains 1 proves "no difference" only when it is this narrow.
SAME_HALF_WIDTH = 0.05

Verdict = Literal["faster", "slower", "same", "invalid"]


@dataclass(frozen=True)
class Comparison:
    """The paired ratio of two rates, subject over baseline: above 1 the subject is faster."""

    ratio_median: float | None
    ci95: tuple[float, float] | None
    n_pairs: int
    verdict: Verdict
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def compare_rates(
    subject: Sequence[float | None], baseline: Sequence[float | None], *, seed: int = 0
) -> Comparison:
    """Judge pairs of rates (higher is better), block by block; a pair with a None (an unusable block) is
    left out.
    """
    pairs = [(a, b) for a, b in zip(subject, baseline, strict=True) if a is not None and b is not None]
    ratios = [a / b for a, b in pairs if b > 0]
    if len(ratios) < MIN_PAIRS:
        return Comparison(
            None, None, len(ratios), "invalid", f"{len(ratios)} usable pairs, {MIN_PAIRS} are needed"
        )
    interval = bootstrap_ci(ratios, lambda values: float(np.median(values)), seed)
    assert interval is not None, "two or more pairs have an interval"
    verdict, reason = _judge(*interval)
    return Comparison(float(np.median(ratios)), interval, len(ratios), verdict, reason)


def _judge(low: float, high: float) -> tuple[Verdict, str]:
    if low > 1:
        return "faster", ""
    if high < 1:
        return "slower", ""
    half_width = (high - low) / 2
    if half_width <= SAME_HALF_WIDTH:
        return "same", ""
    return "invalid", f"noisy: the interval {low:.2f} to {high:.2f} contains 1 and is too wide to say 'same'"
