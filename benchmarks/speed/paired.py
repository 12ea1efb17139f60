"""Two arms, one question: faster, slower, the same, or too noisy to say.

The two blocks of a pair ran side by side in time, so their ratio is free of slow drift. A verdict needs two
witnesses over the pairs: a bootstrap interval of the median ratio that leaves out 1, and the sign test, which
assumes nothing about the noise and holds its level with few pairs, where a bootstrap is too bold.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any, Literal

import numpy as np

from ..records.summary import bootstrap_ci, medians

# The sign test cannot reach its level with five pairs.
MIN_PAIRS = 6
LEVEL = 0.05
# "The same" is a claim too: the whole interval must lie this close to 1.
SAME_MARGIN = 0.05
# On a disturbed machine only what is larger than this is believed.
NOISY_MARGIN = 0.10

Verdict = Literal["faster", "slower", "same", "invalid"]


@dataclass(frozen=True)
class PairedComparison:
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
    subject: Sequence[float | None], baseline: Sequence[float | None], *, noisy: bool = False, seed: int = 0
) -> PairedComparison:
    """Judge pairs of rates (higher is better), block by block.

    Args:
        subject, baseline: one rate per block; a pair with a None (an unusable block) is left out.
        noisy: the machine was disturbed meanwhile, so that small differences prove nothing.
    """
    pairs = [(a, b) for a, b in zip(subject, baseline, strict=True) if a is not None and b is not None]
    ratios = [a / b for a, b in pairs]
    if len(ratios) < MIN_PAIRS:
        reason = f"{len(ratios)} usable pairs, at least {MIN_PAIRS} are needed"
        return PairedComparison(None, None, len(ratios), "invalid", reason)
    interval = bootstrap_ci(ratios, medians, seed)
    assert interval is not None, "two or more pairs have an interval"
    verdict = _verdict(ratios, *interval, NOISY_MARGIN if noisy else 0.0)
    reason = "" if verdict != "invalid" else _why_invalid(*interval, noisy)
    return PairedComparison(float(np.median(ratios)), interval, len(ratios), verdict, reason)


def sign_test(wins: int, pairs: int) -> float:
    """Two-sided probability of at least ``wins`` of ``pairs`` by the toss of a coin."""
    tail = sum(comb(pairs, count) for count in range(wins, pairs + 1)) / (1 << pairs)
    return min(1.0, 2 * tail)


def _verdict(ratios: list[float], low: float, high: float, margin: float) -> Verdict:
    ups, downs = sum(ratio > 1 for ratio in ratios), sum(ratio < 1 for ratio in ratios)
    if low > 1 + margin and sign_test(ups, len(ratios)) <= LEVEL:
        return "faster"
    if high < 1 / (1 + margin) and sign_test(downs, len(ratios)) <= LEVEL:
        return "slower"
    if margin == 0 and low >= 1 - SAME_MARGIN and high <= 1 + SAME_MARGIN:
        return "same"
    return "invalid"


def _why_invalid(low: float, high: float, noisy: bool) -> str:
    interval = f"the ratio's interval is {low:.2f} to {high:.2f}"
    if noisy:
        return f"noisy: the machine was disturbed, and {interval}"
    return f"noisy: {interval}, too wide for 'same' and too near 1 for more"
