"""The best choice with one scheme for all linears, as packaged recipes have it. Predicted losses are of parts
rounded one by one; how much of them learning takes back is not predicted, and may be less of a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .candidates import Space, Unit
from .solve import Infeasible, Limit, Solution, Table, solve

Places = Sequence[Sequence[int]]  # of the options that each unit is left


def solve_uniform(space: Space, objective: Table, limits: Sequence[Limit]) -> Solution | Infeasible:
    """As :func:`.solve.solve`; embedding and head have schemes of their own. Where no scheme does, how far
    limits would have to give way is said of the smallest.
    """
    found = [_within(places, objective, limits) for places in _choices(space.units)]
    solved = [one for one in found if isinstance(one, Solution)]
    if solved:
        return min(solved, key=lambda one: one.damage)
    return found[0] if found else solve(objective, limits)


def _choices(units: Sequence[Unit]) -> Iterator[Places]:
    """Of each scheme that all linears may get, the smallest first."""
    names = [[option.name for option in unit.options] for unit in units]
    linears = [each for each, unit in zip(names, units, strict=True) if not unit.is_table]
    for name in linears[0]:
        if name != "float" and all(name in each for each in linears):
            yield [
                range(len(each)) if unit.is_table else [each.index(name)]
                for each, unit in zip(names, units, strict=True)
            ]


def _within(places: Places, objective: Table, limits: Sequence[Limit]) -> Solution | Infeasible:
    """The solution with the options at ``places`` alone, by their places among all."""
    left = [replace(limit, uses=_left(limit.uses, places)) for limit in limits]
    found = solve(_left(objective, places), left)
    if isinstance(found, Infeasible):
        return replace(found, nearest=_among_all(found.nearest, places))
    return _among_all(found, places)


def _left(table: Table, places: Places) -> list[list[float]]:
    return [[row[place] for place in kept] for row, kept in zip(table, places, strict=True)]


def _among_all(found: Solution, places: Places) -> Solution:
    chosen = tuple(kept[option] for kept, option in zip(places, found.options, strict=True))
    return replace(found, options=chosen)
