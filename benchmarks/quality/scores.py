"""``Scores``: one metric of a model and of its original on the same rows, and the numbers made from them.

Both are kept row by row (a window, a sentence, a word pair), so that the interval of their difference comes
from paired resampling: a hard window is hard for both and does not widen it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records.record import Metric
from ..records.summary import bootstrap_ci
from .metrics import MetricRow, Rows

Array = NDArray[np.float64]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis. The largest logit is subtracted first, so nothing overflows."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


@dataclass(frozen=True)
class Scores:
    """Rows ``[n, k]`` of the subject and, in the same order, of the original."""

    metric: MetricRow
    subject: Rows
    original: Rows

    def of_subject(self, seed: int = 0) -> Metric:
        """The subject's number with its interval and its spread over rows."""
        return _metric(self.metric, self.subject, seed)

    def of_original(self, seed: int = 0) -> Metric:
        """The original's number."""
        return _metric(self.metric, self.original, seed)

    def delta(self, seed: int = 0) -> dict[str, Any]:
        """``value`` and ``ci95`` of subject minus original, by paired resampling."""
        width = self.subject.shape[1]

        def difference(rows: Rows) -> Rows:
            return self.metric.value(rows[..., :width]) - self.metric.value(rows[..., width:])

        paired = np.concatenate([self.subject, self.original], axis=1)
        interval = bootstrap_ci(paired, difference, seed)
        return {
            "value": float(difference(paired)),
            "ci95": None if interval is None else list(interval),
            "unit": self.metric.unit,
        }

    def samples(self) -> list[float]:
        """The subject's number for each row alone: per window or sentence; similarities for word pairs."""
        if self.metric.measured_on == "pairs":
            return [float(number) for number in self.subject[:, 0]]
        return [float(number) for number in self.metric.value(self.subject[:, None])]


def _metric(metric: MetricRow, rows: Rows, seed: int) -> Metric:
    summary = Metric(
        value=float(metric.value(rows)),
        unit=metric.unit,
        n=len(rows),
        better=metric.better,
        ci95=bootstrap_ci(rows, metric.value, seed),
    )
    if metric.measured_on == "pairs":
        return summary
    alone = metric.value(rows[:, None])
    spread = {"mean": alone.mean(), "min": alone.min(), "max": alone.max()}
    if len(alone) > 1:
        spread["sd"] = alone.std(ddof=1)
    return summary.model_copy(update={name: float(number) for name, number in spread.items()})
