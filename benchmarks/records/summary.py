"""From samples to a :class:`Metric`: median, spread, percentiles, and intervals by the percentile bootstrap.

A percentile p of n samples rests on n·(1 - p) of them. Below ten it is an anecdote, so p90 asks for 100
samples and p99 for 1000; otherwise they are null and the reason is given.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .record import Metric

Rows = NDArray[np.float64]

RESAMPLES = 2000
# Of resampled rows: they stay within a few megabytes.
_NUMBERS_AT_ONCE = 1 << 18


def bootstrap_ci(
    values: Sequence[float] | Rows,
    statistic: Callable[[Rows], Rows],
    seed: int = 0,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """The interval that holds the central ``level`` of ``statistic`` over resampled rows.

    Args:
        values: ``[n]`` or ``[n, k]``; a row is the unit of independence (a window, a block, a word pair) and
            stays whole, so paired quantities belong in one row.
        statistic: maps resampled rows ``[r, n]`` or ``[r, n, k]``, many sets at once, to ``[r]``
            (:func:`medians`, a ratio of column sums, …).
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        ``(low, high)`` in the statistic's unit, or None when there are fewer than two rows.
    """
    rows = np.asarray(values, dtype=np.float64)
    if len(rows) < 2:
        return None
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(rows), size=(resamples, len(rows)))
    at_once = max(1, _NUMBERS_AT_ONCE // rows.size)
    parts = [statistic(rows[picks[first : first + at_once]]) for first in range(0, resamples, at_once)]
    estimates = np.concatenate(parts)
    assert estimates.shape == (resamples,), "a number for each set of rows"
    tail = 50 * (1 - level)
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)


_TAIL = 10
# A bootstrap of fewer values is their range at best.
_FEWEST = 5


def percentile(samples: Sequence[float], p: float) -> float | None:
    """The p-quantile (0 < p < 1) of the samples; None when fewer than ten lie beyond it."""
    # 100 × (1 - 0.9) is 9.999…8 in binary: count in whole samples.
    if round(len(samples) * (1 - p), 6) < _TAIL:
        return None
    return float(np.quantile(np.asarray(samples, dtype=np.float64), p))


def mad(samples: Sequence[float]) -> float:
    """Median absolute deviation from the median."""
    values = np.asarray(samples, dtype=np.float64)
    return float(np.median(np.abs(values - np.median(values))))


def summarize(
    samples: Sequence[float],
    unit: str,
    better: Literal["lower", "higher"],
    *,
    observed: Sequence[float] | None = None,
    seed: int = 0,
) -> Metric:
    """The metric of one value per block.

    Args:
        samples: independent values, one per block or process; the value is their median, the interval a
            bootstrap.
        observed: every single observation (each token of each run), for the percentiles alone. Default:
            ``samples``.
    """
    if not samples:
        return Metric(value=None, unit=unit, n=0, better=better, reason="no sample was usable")
    values = np.asarray(samples, dtype=np.float64)
    tail = samples if observed is None else observed
    p90, p99 = percentile(tail, 0.90), percentile(tail, 0.99)
    missing = [name for name, value in (("p90", p90), ("p99", p99)) if value is None]
    reason = f"{' and '.join(missing)} need more than {len(tail)} samples" if missing else ""
    return Metric(
        value=float(np.median(values)),
        unit=unit,
        n=len(samples),
        better=better,
        ci95=bootstrap_ci(samples, medians, seed) if len(samples) >= _FEWEST else None,
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if len(samples) > 1 else None,
        mad=mad(samples),
        min=float(values.min()),
        max=float(values.max()),
        p90=p90,
        p99=p99,
        reason=reason,
    )


def medians(values: Rows) -> Rows:
    """Of ``values [..., n]``, ``[...]``."""
    return np.asarray(np.median(values, axis=-1))
