"""One option for every unit, the least damage within all limits at once: a mixed-integer programme, solved
exactly by HiGHS (Huangfu and Hall 2018, "Parallelizing the dual revised simplex method") through
:func:`scipy.optimize.milp`.

What no choice can keep is answered too: how far each limit alone would have to give way.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OutOfResource, require

# Of the least damage: where the search ends. Damages are estimates that are known far less well.
GAP = 1e-4
_SECONDS = 60.0
_SCALE = 1e6  # of the damages, so that HiGHS's absolute tolerances are below GAP
_INFEASIBLE = 2  # a status of milp's
_ROUNDS = 20  # in which what a tolerance let pass is taken back

Table = Sequence[Sequence[float]]
# By unit some of its options: in either all of these units one of them is chosen, or in none.
Tie = Mapping[int, Sequence[int]]


def total(table: Table, options: Sequence[int]) -> float:
    """What ``options``, one of each row, add up to."""
    return math.fsum(row[option] for row, option in zip(table, options, strict=True))


@dataclass(frozen=True)
class Limit:
    """``uses[unit][option]`` of something add up to at most ``bound``."""

    name: str
    uses: Table
    bound: float

    def used(self, options: Sequence[int]) -> float:
        """By a choice."""
        return total(self.uses, options)

    def kept(self, options: Sequence[int]) -> bool:
        """By a choice, but for the last digits of the sum."""
        return self.used(options) <= self.bound + 1e-12 * abs(self.bound)


@dataclass(frozen=True)
class Solution:
    """The chosen ``options``, an index for each unit, and their total ``damage``, which is at most ``gap`` of
    it above the least.
    """

    options: tuple[int, ...]
    damage: float
    gap: float


@dataclass(frozen=True)
class Infeasible:
    """No choice keeps all limits.

    Attributes:
        enough: by name, the bound of each limit that would do if all others were kept; None where no bound of
            it does.
    """

    enough: dict[str, float | None]


def solve(damages: Table, limits: Sequence[Limit], ties: Sequence[Tie] = ()) -> Solution | Infeasible:
    """The choice of least damage that keeps the ``ties``; ``damages[unit][option]`` and all uses are
    finite.
    """
    return solve_any(damages, [limits], ties)


def solve_any(
    damages: Table, sets: Sequence[Sequence[Limit]], ties: Sequence[Tie] = ()
) -> Solution | Infeasible:
    """The same where a choice keeps all limits of one of the ``sets``, whichever that is."""
    require("scipy", "fit")
    found = [one for limits in sets if (one := _least(damages, limits, ties)) is not None]
    if found:
        return min(found, key=lambda one: one.damage)
    enough: dict[str, float | None] = {}
    for limits in sets:
        for index, limit in enumerate(limits):
            least = _least(limit.uses, [*limits[:index], *limits[index + 1 :]], ties)
            known = [enough.get(limit.name), None if least is None else limit.used(least.options)]
            enough[limit.name] = min((bound for bound in known if bound is not None), default=None)
    return Infeasible(enough)


def _least(objective: Table, limits: Sequence[Limit], ties: Sequence[Tie]) -> Solution | None:
    """The choice with the least of ``objective``, or None. A bound that HiGHS keeps within its tolerance
    alone is drawn in by what was too much.
    """
    bounds = [limit.bound for limit in limits]
    for _ in range(_ROUNDS):
        found = _milp(objective, [limit.uses for limit in limits], bounds, ties)
        if found is None:
            return None
        over = [
            max(0.0, limit.used(found.options) - limit.bound) if not limit.kept(found.options) else 0.0
            for limit in limits
        ]
        if not any(over):
            return found
        bounds = [bound - 2 * much for bound, much in zip(bounds, over, strict=True)]
    return None


def _milp(
    objective: Table, uses: Sequence[Table], bounds: Sequence[float], ties: Sequence[Tie]
) -> Solution | None:
    """Each row is counted from its least options, in shares of the room that they leave."""
    sizes = [len(row) for row in objective]
    alike = _alike(sizes, ties)
    rows = [np.concatenate([_one_each(sizes), alike])]
    roofs = [np.ones(len(sizes)), np.zeros(len(alike))]
    for table, bound in zip(uses, bounds, strict=True):
        least = math.fsum(min(row) for row in table)
        room = bound - least
        if room < -1e-12 * abs(bound):
            return None
        extra = np.concatenate([np.asarray(row, float) - min(row) for row in table])
        if room <= 0 or not extra.any():
            rows.append((extra > 0).astype(float)[None])
            roofs.append(np.zeros(1) if extra.any() else np.ones(1))
        else:
            rows.append((extra / room)[None])
            roofs.append(np.ones(1))
    base = math.fsum(min(row) for row in objective)
    extra = np.concatenate([np.asarray(row, float) - min(row) for row in objective])
    scale = _SCALE / (math.fsum(max(row) - min(row) for row in objective) or 1.0)
    floor = np.concatenate([*roofs[:2], *(np.full(1, -np.inf) for _ in uses)])
    whole, roof = np.ones(len(extra)), np.concatenate(roofs)
    result = _run(extra * scale, whole, whole, np.concatenate(rows), floor, roof)
    return _solution(result, objective, sizes, base, scale)


def _run(objective: Any, whole: Any, most: Any, matrix: Any, floor: Any, roof: Any) -> Any:
    """HiGHS's least of ``objective [columns]`` from 0 to ``most``, ``whole`` where 1, with ``matrix [rows,
    columns]`` between ``floor`` and ``roof``.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    with _nothing_printed():
        return milp(
            objective,
            integrality=whole,
            bounds=Bounds(0, most),
            constraints=LinearConstraint(matrix, floor, roof),
            options={"mip_rel_gap": GAP / 10, "time_limit": _SECONDS},
        )


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """HiGHS writes a line to the stdout of the process now and then, where a verb has its one document."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)  # what it wrote may still wait in C's own buffer
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _one_each(sizes: Sequence[int]) -> Any:
    """The rows ``[units, options]`` that add up the options of each unit."""
    found = np.zeros((len(sizes), sum(sizes)))
    start = 0
    for unit, size in enumerate(sizes):
        found[unit, start : start + size] = 1.0
        start += size
    return found


def _alike(sizes: Sequence[int], ties: Sequence[Tie]) -> Any:
    """The rows ``[rows, options]`` that are 0 where the ``ties`` are kept: of each unit after the first its
    options less those of the first.
    """
    starts = np.concatenate([np.zeros(1, int), np.cumsum(sizes)])
    found = []
    for tie in ties:
        (first, options), *others = tie.items()
        for unit, ones in others:
            row = np.zeros(starts[-1])
            row[starts[first] + np.asarray(options, int)] = -1.0
            row[starts[unit] + np.asarray(ones, int)] = 1.0
            found.append(row)
    return np.array(found).reshape(len(found), starts[-1])


def _solution(
    result: Any, objective: Table, sizes: Sequence[int], base: float, scale: float
) -> Solution | None:
    if result.status == _INFEASIBLE:
        return None
    options = _chosen(result, sizes)
    damage = total(objective, options)
    bound = base + (result.mip_dual_bound if result.mip_dual_bound is not None else 0.0) / scale
    return Solution(options, damage, max(0.0, damage - bound) / abs(damage) if damage else 0.0)


def _chosen(result: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """The option of each unit; raises OutOfResource where time ended before there were any."""
    if result.x is None:
        raise OutOfResource(
            f"no choice was found in {_SECONDS:.0f} s",
            why=str(result.message),
            fix="give wider budgets, or fewer of them",
        )
    parts = np.split(result.x[: sum(sizes)], np.cumsum(sizes)[:-1])
    return tuple(int(part.argmax()) for part in parts)
