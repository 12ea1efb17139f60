"""How many times another row's figure a row's is, with its interval: windows are resampled in pairs."""

import math
from dataclasses import dataclass

import numpy as np

from ...records.summary import Rows, bootstrap_ci
from .making import RowQuality


@dataclass(frozen=True)
class Ratio:
    """``interval`` is None of a metric that is not the mean of what each window gives."""

    value: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        around = "" if self.interval is None else " [{:.2f}, {:.2f}]".format(*self.interval)
        return f"{self.value:.2f}{around}"


def over(mine: RowQuality, other: RowQuality, metric: str) -> Ratio | None:
    """``metric`` of ``mine`` over that of ``other``, both on the same windows; None where one lacks it."""
    top, bottom = mine.values.get(metric), other.values.get(metric)
    if top is None or not bottom:
        return None
    ours, theirs = mine.samples.get(metric, []), other.samples.get(metric, [])
    found = Ratio(top / bottom, None)
    if not ours or len(ours) != len(theirs) or not math.isclose(np.mean(ours), top, rel_tol=1e-6):
        return found
    return Ratio(found.value, bootstrap_ci(np.column_stack([ours, theirs]), _of_sums))


def _of_sums(rows: Rows) -> Rows:
    return np.asarray(rows[..., 0].sum(axis=-1) / rows[..., 1].sum(axis=-1))
