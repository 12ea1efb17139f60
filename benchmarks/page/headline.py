"""Which versions no other beats, which one a report speaks about first, and how much faster it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...files.limits import finite_number
from ..records import conditions
from .result_groups import ResultGroup, ResultRow

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
    front: list[tuple[float, ...]] = []
    # In this order a point comes after all that dominate it, of which one is on the front.
    for point in sorted(set(map(tuple, points))):
        if not any(dominates(other, point) for other in front):
            front.append(point)
    kept = set(front)
    return [i for i, point in enumerate(points) if tuple(point) in kept]


def headline(group: ResultGroup) -> ResultRow | None:
    """The compressed row that the verdict is about: the one that was delivered, or else that is recommended
    where it was measured.

    The bend of the front of size against loss: the point farthest below the line between the front's two
    ends, both axes logarithmic. With fewer than three points on the front it is the one that lost least.
    Versions that lost their text or are slower than the original stay out, unless all are.
    """
    if group.delivered is not None:
        return group.delivered
    front = _front(group)
    if not front:
        return next(iter(group.compressed), None)
    return front[_bend(front)][0]


def why(group: ResultGroup) -> str:
    """What speaks for :func:`headline`, in a sentence without a full stop."""
    front, loss = _front(group), LOSS[group.kind]
    if group.delivered is not None and group.chosen is not None:
        return group.chosen.why
    if not front:
        return "the quality of none was measured"
    place = _bend(front)
    row, lost = front[place]
    if len(front) < 3:
        count = len(_fit(group))
        text = f"of {count} versions it lost least" if count > 1 else "the only version to choose"
    else:
        parts = [
            f"{other.subject.scheme} is {_size_beside(other, row)} and loses {_loss_beside(worse, lost)}"
            for other, worse in (front[place - 1], front[place + 1])
        ]
        text = f"the bend of size against {loss.name}: {', '.join(parts)}"
    return "; ".join([text, *_left_out(group)])


def _size_beside(other: ResultRow, row: ResultRow) -> str:
    change = round(100 * (other.subject.disk_bytes / max(row.subject.disk_bytes, 1) - 1))
    if change == 0:
        return "as large"
    return f"{-change} % smaller" if change < 0 else f"{change} % larger"


def _loss_beside(other: float, lost: float) -> str:
    return f"{conditions.significant(other / lost, 2)}× as much"


def _left_out(group: ResultGroup) -> list[str]:
    """Why versions were not considered, where others were."""
    reasons = {row.subject.scheme: _unfit(row) for row in group.compressed}
    if all(reasons.values()):
        return []
    return [f"{scheme} {reason}" for scheme, reason in reasons.items() if reason]


def _fit(group: ResultGroup) -> Sequence[ResultRow]:
    """The versions that may be recommended: all, where something speaks against each."""
    return [row for row in group.compressed if not _unfit(row)] or group.compressed


def _unfit(row: ResultRow) -> str:
    """Why a version is not recommended; empty where nothing speaks against it."""
    if text_lost(row):
        return "lost its text"
    found = speed(row)
    return "is slower than the original here" if found is not None and found.verdict == "slower" else ""


def text_lost(row: ResultRow) -> dict[str, Any] | None:
    """What validate recorded of greedy replies, where they loop or stray."""
    line = row.line("quality")
    found = (line.compare or {}).get("text") if line is not None else None
    return found if isinstance(found, dict) and found.get("verdict") != "keeps" else None


def _front(group: ResultGroup) -> list[tuple[ResultRow, float]]:
    """The versions that no other beats in size and loss at once, with their losses, from small to large."""
    found = [(row, loss) for row in _fit(group) if (loss := loss_of(row)) is not None]
    points = [(row.subject.disk_bytes, loss) for row, loss in found]
    return [found[index] for index in sorted(pareto_front(points), key=points.__getitem__)]


def _bend(front: Sequence[tuple[ResultRow, float]]) -> int:
    if len(front) < 3:
        return len(front) - 1
    points = [(math.log(max(row.subject.disk_bytes, 1)), math.log(loss)) for row, loss in front]
    (x0, y0), (x1, y1) = points[0], points[-1]

    def depth(index: int) -> float:
        x, y = points[index]
        return (y0 - y) * (x1 - x0) + (y1 - y0) * (x - x0)

    return max(range(1, len(front) - 1), key=depth)


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
    ratio, interval = finite_number(line.compare.get("ratio_median")), line.compare.get("ci95")
    verdict = str(line.compare.get("verdict", ""))
    if ratio is None or ratio <= 0 or "invalid" in verdict:
        return None
    ends = interval if isinstance(interval, list | tuple) and len(interval) == 2 else (None, None)
    low, high = map(finite_number, ends)
    return Speed(ratio, None if low is None or high is None else (low, high), verdict)
