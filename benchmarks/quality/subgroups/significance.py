"""Is one group harmed more than the others? The tests, their correction for being many, and their power.

Means: a cluster-robust t-test of the difference of two ratios of sums, by linearization (Cochran, "Sampling
Techniques", 3rd ed. 1977, section 6.4). Changed answers: Fisher's exact test. The direction of changes: the
sign test. Many tests: Holm, "A simple sequentially rejective multiple test procedure", 1979.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LEVEL = 0.05
POWER = 0.8
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Difference:
    """A group's ratio of sums minus that of the others, its standard error, and the one-sided ``p`` of a
    group that is not harmed more."""

    value: float
    error: float
    p: float


def ratio_difference(group: Numbers, others: Numbers) -> Difference:
    """Compare ``Σ harm ÷ Σ weight`` of two groups.

    Args:
        group, others: ``[clusters, 2]``, harm and weight that a cluster adds to each; a cluster that has
            nothing of one of them has zeros there.

    Returns:
        The difference. Fewer than two clusters have no error, and no evidence: p is 1.
    """
    mine, theirs = group.sum(axis=0), others.sum(axis=0)
    value = float(mine[0] / mine[1] - theirs[0] / theirs[1])
    each = _influence(group, mine) - _influence(others, theirs)
    count = int((group[:, 1] > 0).sum())
    if count < 2:
        return Difference(value, math.inf, 1.0)
    error = math.sqrt(len(each) / (len(each) - 1) * float((each**2).sum()))
    if error == 0:
        return Difference(value, 0.0, 0.0 if value > 0 else 1.0)
    return Difference(value, error, _upper_tail_of_t(value / error, count - 1))


def _influence(rows: Numbers, total: Numbers) -> Numbers:
    """What each cluster adds to the error of the ratio ``total[0] ÷ total[1]``."""
    influence: Numbers = (rows[:, 0] - total[0] / total[1] * rows[:, 1]) / total[1]
    return influence


def _upper_tail_of_t(t: float, freedom: int) -> float:
    """P(T > t) of Student's t by the normal deviate of Wallace, "Bounds on normal approximations to
    Student's and the chi-square distributions", 1959; off by less than 0.002 from two degrees of freedom on.
    """
    size = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return _NORMAL.cdf(-math.copysign(size, t))


def more_changes(changed: int, count: int, others_changed: int, others_count: int) -> float:
    """One-sided p of Fisher's exact test: ``changed`` of ``count`` answers or more, if all changes had
    fallen on anyone alike."""
    changes, all_of = changed + others_changed, count + others_count
    total = math.comb(all_of, changes)
    most = min(changes, count)
    ways = sum(
        math.comb(count, each) * math.comb(others_count, changes - each)
        for each in range(changed, most + 1)
        if changes - each <= others_count
    )
    return ways / total


def one_way(towards: int, away: int) -> float:
    """Two-sided p of the sign test: whether changes go one way more often than the other."""
    count, fewer = towards + away, min(towards, away)
    tail = sum(math.comb(count, each) for each in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**count))


def corrected(ps: Sequence[float]) -> list[float]:
    """The p of each test, corrected for there being ``len(ps)`` of them."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    found, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        found[index] = highest
    return found


def smallest_seen(error: float, tests: int) -> float | None:
    """The difference that a test with this standard error finds four times in five, corrected as the first
    of ``tests``; None where there is no error to judge by."""
    if not 0 < error < math.inf:
        return None
    return (_NORMAL.inv_cdf(1 - LEVEL / max(1, tests)) + _NORMAL.inv_cdf(POWER)) * error


def smallest_share_seen(count: int, others_changed: int, others_count: int, tests: int) -> float | None:
    """The share of ``count`` answers that must change for Fisher's test, corrected as the first of ``tests``,
    to find it four times in five, beside so many of the others; None where it would not find all of them.
    """
    level = LEVEL / max(1, tests)
    if not others_count or _fisher(count, count, others_changed, others_count) >= level:
        return None
    least = _least(lambda k: _fisher(k, count, others_changed, others_count) < level, count)
    places = 1000
    found = _least(lambda place: _at_least(least, count, place / places) >= POWER, places)
    return found / places


def _least(holds: Callable[[int], bool], most: int) -> int:
    """The smallest number for which ``holds``, which then holds for all up to ``most``."""
    low = 0
    while low < most:
        middle = (low + most) // 2
        low, most = (low, middle) if holds(middle) else (middle + 1, most)
    return low


def _fisher(changed: int, count: int, others_changed: int, others_count: int) -> float:
    """:func:`more_changes` in floating point, for many of them."""
    changes, whole = changed + others_changed, _choices(count + others_count, changed + others_changed)
    each = range(max(changed, changes - others_count), min(changes, count) + 1)
    return sum(math.exp(_choices(count, one) + _choices(others_count, changes - one) - whole) for one in each)


def _at_least(least: int, count: int, share: float) -> float:
    """How likely ``least`` of ``count`` or more are, if each comes with the probability ``share``."""
    if share in (0, 1):
        return float(share == 1 or least == 0)
    yes, no = math.log(share), math.log1p(-share)
    each = range(least, count + 1)
    return sum(math.exp(_choices(count, one) + one * yes + (count - one) * no) for one in each)


def _choices(count: int, chosen: int) -> float:
    """Logarithm of how many ways there are to choose."""
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
