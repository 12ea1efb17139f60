"""Pareto fronts by non-dominated sorting: which subjects no other subject beats in every respect.

The peeling into successive fronts is that of Deb, Pratap, Agarwal and Meyarivan, "A Fast and Elitist
Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation, 2002.
"""

from __future__ import annotations

from collections.abc import Sequence

Objectives = Sequence[float]


def dominates(one: Objectives, other: Objectives) -> bool:
    """Whether ``one`` is nowhere larger than ``other`` and somewhere smaller (all are minimised)."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(
        a < b for a, b in zip(one, other, strict=True)
    )


def non_dominated_sort(points: Sequence[Objectives]) -> list[list[int]]:
    """Indices of ``points`` peeled into fronts: the first is dominated by nobody, the next only by it, …

    Every objective is minimised (negate what should be large); equal points share a front.
    """
    beaten_by = [sum(dominates(other, point) for other in points) for point in points]
    fronts: list[list[int]] = []
    current = [i for i, count in enumerate(beaten_by) if count == 0]
    while current:
        fronts.append(current)
        following = []
        for winner in current:
            for loser, point in enumerate(points):
                if dominates(points[winner], point):
                    beaten_by[loser] -= 1
                    if beaten_by[loser] == 0:
                        following.append(loser)
        current = sorted(following)
    return fronts


def pareto_front(points: Sequence[Objectives]) -> list[int]:
    """Indices of the points that no other point dominates, in their order; empty for no points."""
    fronts = non_dominated_sort(points)
    return fronts[0] if fronts else []
