"""Confidence intervals by the percentile bootstrap.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics, 1979. Rows are resampled with
replacement, never the tokens or iterations inside them: neighbours in a window or a block are correlated, and
an interval over them would be too narrow. With fewer than about ten rows the interval is itself narrow by
some tens of per cent; the count is recorded beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]

RESAMPLES = 2000


def bootstrap_ci(
    values: Sequence[float] | Rows,
    statistic: Callable[[Rows], float],
    seed: int = 0,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """The interval that holds the central ``level`` of ``statistic`` over resampled rows.

    Args:
        values: ``[n]`` or ``[n, k]``; a row is the unit of independence (a window, a block, a word pair) and
            stays whole, so paired quantities belong in one row.
        statistic: maps an array of the same shape to a number (``np.median``, a ratio of column sums, …).
        seed: of the resampling; the same values and seed give the same interval.

    Returns:
        ``(low, high)`` in the statistic's unit, or None when there are fewer than two rows.
    """
    rows = np.asarray(values, dtype=np.float64)
    if len(rows) < 2:
        return None
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(rows), size=(resamples, len(rows)))
    estimates = np.fromiter((statistic(rows[pick]) for pick in picks), dtype=np.float64, count=resamples)
    tail = 50 * (1 - level)
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return float(low), float(high)
