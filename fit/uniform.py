"""The best choice with one scheme for all linears, as packaged recipes have it. Predicted losses are of parts
rounded one by one; how much of them learning takes back is not predicted, and may be less of a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .candidates import Space, Unit
from .solve import Infeasible, Limit, Solution, Table, solve_any

Places = Sequence[Sequence[int]]  # of the options that each unit is left


def solve_uniform(space: Space, objective: Table, sets: Sequence[Sequence[Limit]]) -> Solution | Infeasible:
    """As :func:`.solve.solve_any`; embedding and head have schemes of their own. Where no scheme does, how
    far limits would have to give way is said of the smallest.
    """
    found = [_within(places, objective, sets) for places in _choices(space.units)]
    solved = [one for one in found if isinstance(one, Solution)]
    if solved:
        return min(solved, key=lambda one: one.damage)
    return found[0] if found else solve_any(objective, sets)


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


def _within(places: Places, objective: Table, sets: Sequence[Sequence[Limit]]) -> Solution | Infeasible:
    """The solution with the options at ``places`` alone, by their places among all."""
    left = [[replace(limit, uses=_left(limit.uses, places)) for limit in limits] for limits in sets]
    found = solve_any(_left(objective, places), left)
    if isinstance(found, Infeasible):
        return found
    chosen = tuple(kept[option] for kept, option in zip(places, found.options, strict=True))
    return replace(found, options=chosen)


def _left(table: Table, places: Places) -> list[list[float]]:
    return [[row[place] for place in kept] for row, kept in zip(table, places, strict=True)]
