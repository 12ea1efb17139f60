"""Where things go in a plot: axis ticks, and labels beside points that cover neither each other nor a point.

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
        # Zero lies at the lower end: the smallest number keeps well away from it.
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


RINGS = (9.0, 18.0, 30.0, 46.0, 66.0, 92.0, 124.0, 160.0)
DIRECTIONS = (0, 180, 270, 90, 315, 45, 225, 135, 292, 68, 248, 112, 338, 22, 202, 158)
LEADER_FROM = 14.0
POINT_RADIUS = 6.0


@dataclass(frozen=True)
class Box:
    """A rectangle in SVG user units: ``y`` grows downwards."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        high = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return max(wide, 0.0) * max(high, 0.0)

    def outside(self, area: Box) -> float:
        """The part of the own area that leaves ``area``."""
        return self.width * self.height - self.overlap(area)


@dataclass(frozen=True)
class Placement:
    """Where a label goes; ``leader`` asks for a line from the point to the box."""

    box: Box
    leader: bool


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    area: Box,
    soft: Sequence[Box] = (),
) -> list[Placement]:
    """A placement for each point's label.

    Args:
        points: the anchors.
        sizes: width and height of each label.
        area: where labels may lie.
        soft: regions that are better left free, but need not be (a line drawn through the plot).
    """
    obstacles = [
        Box(x - POINT_RADIUS, y - POINT_RADIUS, 2 * POINT_RADIUS, 2 * POINT_RADIUS) for x, y in points
    ]
    placed: dict[int, Placement] = {}
    for index in sorted(range(len(points)), key=lambda i: _room(points, i)):
        taken = [*obstacles, *(placement.box for placement in placed.values())]
        placed[index] = _best(points[index], sizes[index], area, taken, soft)
    return [placed[index] for index in range(len(points))]


def _room(points: Sequence[tuple[float, float]], index: int) -> float:
    """Distance to the nearest other point."""
    return min(
        (math.dist(points[index], other) for i, other in enumerate(points) if i != index), default=math.inf
    )


def _best(
    point: tuple[float, float],
    size: tuple[float, float],
    area: Box,
    taken: Sequence[Box],
    soft: Sequence[Box],
) -> Placement:
    """The first free position; where there is none, the one that covers least."""
    best, least = None, math.inf
    for ring in RINGS:
        for turn, direction in enumerate(DIRECTIONS):
            box = _candidate(point, size, ring, math.radians(direction))
            hard = sum(box.overlap(other) for other in taken) + box.outside(area)
            cost = 1e3 * hard + sum(box.overlap(other) for other in soft) + 3 * ring + turn
            if cost < least:
                best, least = Placement(box, ring > LEADER_FROM), cost
    assert best is not None
    return best


def _candidate(point: tuple[float, float], size: tuple[float, float], ring: float, angle: float) -> Box:
    """The label's box whose nearest edge or corner lies ``ring`` away in the direction ``angle``."""
    x, y = point[0] + ring * math.cos(angle), point[1] + ring * math.sin(angle)
    horizontal, vertical = round(math.cos(angle), 1), round(math.sin(angle), 1)
    left = x if horizontal > 0.3 else x - size[0] if horizontal < -0.3 else x - size[0] / 2
    top = y if vertical > 0.3 else y - size[1] if vertical < -0.3 else y - size[1] / 2
    return Box(left, top, *size)
