"""Which versions no other beats, which one a report speaks about first, and how much faster it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .join import ResultGroup, ResultRow

SMALLEST_LOSS = 1e-6


@dataclass(frozen=True)
class Loss:
    """What says how far a version is from the original: a metric, which one of ``nearness`` is 1 at best."""

    metric: str
    name: str
    digits: int
    nearness: bool = False

    def of(self, value: float) -> float:
        """What should be small, from the metric's value."""
        return 1 - value if self.nearness else value


LOSS = {
    "decoder": Loss("kl", "mean KL", 3),
    "encoder": Loss("cosine", "mean cosine", 4, nearness=True),
    "classifier": Loss("label_kl", "mean KL of the labels", 4),
}


@dataclass(frozen=True)
class Speed:
    """How many times faster than the baseline; above 1 is faster."""

    ratio: float
    interval: tuple[float, float] | None
    verdict: str


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is nowhere larger than ``other`` and somewhere smaller (all are minimised)."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates (negate what should be large), in their order."""
    return [i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)]


def headline(group: ResultGroup) -> ResultRow | None:
    """The compressed row that the verdict is about.

    The bend of the front of size against loss: the point farthest below the line between the front's two
    ends, both axes logarithmic. With fewer than three points on the front it is the one that lost least.
    """
    candidates = [(row, loss) for row in group.compressed if (loss := loss_of(row)) is not None]
    if not candidates:
        return next(iter(group.compressed), None)
    points = [(math.log(max(row.subject.disk_bytes, 1)), math.log(loss)) for row, loss in candidates]
    front = sorted(pareto_front(points), key=points.__getitem__)
    if len(front) < 3:
        return candidates[front[-1]][0]
    (x0, y0), (x1, y1) = points[front[0]], points[front[-1]]

    def depth(index: int) -> float:
        x, y = points[index]
        return (y0 - y) * (x1 - x0) + (y1 - y0) * (x - x0)

    return candidates[max(front[1:-1], key=depth)][0]


def loss_of(row: ResultRow) -> float | None:
    """What should be small: KL, or one minus the cosine; None where it was not measured or is invalid."""
    loss = LOSS[row.subject.kind]
    value = row.usable(loss.metric)
    return None if value is None else max(loss.of(value), SMALLEST_LOSS)


def speed(row: ResultRow) -> Speed | None:
    """The interleaved comparison of a row's latency line, or None where there is none that may be used."""
    line = row.line("latency")
    if line is None or line.compare is None or line.validity.status == "invalid":
        return None
    ratio, interval = line.compare.get("ratio_median"), line.compare.get("ci95")
    verdict = str(line.compare.get("verdict", ""))
    if not isinstance(ratio, int | float) or not math.isfinite(ratio) or ratio <= 0 or "invalid" in verdict:
        return None
    ends = interval if isinstance(interval, list | tuple) and len(interval) == 2 else None
    if ends is not None and not all(isinstance(end, int | float) for end in ends):
        ends = None
    return Speed(float(ratio), (float(ends[0]), float(ends[1])) if ends else None, verdict)
