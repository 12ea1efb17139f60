"""Labels beside points, placed so that they cover neither each other nor a point.

Greedy placement over ring positions, after Christensen, Marks and Shieber, "An Empirical Study of Algorithms
for Point-Feature Label Placement", ACM Transactions on Graphics, 1995: the most crowded point chooses first,
the near positions come before the far ones, and a label that had to move away gets a leader line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
