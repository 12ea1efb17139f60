"""Why the choice is what it is: which unit got what, and what more or less of each budget would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..compress.model.weights import WeightSource
from ..compress.solve.allocation import strip
from .budgets import Budget
from .candidates import Space
from .corrections import Corrections, damages_by
from .corrections import before as damage_before
from .methods import Method
from .quantities import Quantity
from .solve import Infeasible, solve_any

# By how much a budget is moved to see its price.
_STEP = 0.1


@dataclass(frozen=True)
class Price:
    """What is ``judged`` would be ``then`` and not as ``now``, as predicted, were the bound of ``budget``
    another ``bound``; None where no choice keeps it.
    """

    judged: Quantity
    budget: Budget
    bound: float
    now: float
    then: float | None

    def shown(self) -> str:
        """In a line."""
        quantity = self.budget.quantity
        moved = (
            f"{quantity.name} {quantity.shown(self.bound)} in place of {quantity.shown(self.budget.bound)}"
        )
        if self.then is None:
            return f"{moved}: no choice keeps that"
        judged = self.judged
        return f"{moved} would take {judged.name} from {judged.shown(self.now)} to {judged.shown(self.then)}"


def prices(space: Space, corrections: Corrections, method: Method, budgets: Sequence[Budget]) -> list[Price]:
    """A tenth more and less of each budget but those of quality, as shadow prices: by solving again."""
    judged, found = space.judged, []
    others = [one for one in budgets if not one.quantity.of_quality]
    lost = damages_by(space, method)
    now = solve_any(lost, corrections.limits(space, others, method))
    if isinstance(now, Infeasible):
        return []
    for index, budget in enumerate(others):
        for step in (1 + _STEP, 1 - _STEP):
            moved = replace(budget, bound=step * budget.bound)
            sets = corrections.limits(space, [*others[:index], moved, *others[index + 1 :]], method)
            then = solve_any(lost, sets)
            first = damage_before(space, method)
            before = corrections.value(judged.name, method, first + now.damage)
            after = None
            if not isinstance(then, Infeasible):
                after = corrections.value(judged.name, method, first + then.damage)
            found.append(Price(judged, budget, moved.bound, before, after))
    return found


def units_of(space: Space, options: Sequence[int]) -> list[dict[str, Any]]:
    """By unit: its scheme, bytes, and the share of the predicted damage that it has."""
    chosen = space.chosen(options)
    total = sum(option.damage for _, option in chosen) or 1.0
    return [
        {
            "unit": unit.name,
            "scheme": option.name,
            "bytes": round(option.size),
            "share_of_damage": option.damage / total,
        }
        for unit, option in chosen
    ]


def strips(source: WeightSource, space: Space, options: Sequence[int]) -> list[str]:
    """The bits of linears, a line a kind, a digit a block; and the tables, if there are any."""
    chosen = space.chosen(options)
    schemes = {
        name: option.scheme
        for unit, option in chosen
        if not unit.is_table and option.scheme is not None
        for name in unit.modules
    }
    tables = [f"{unit.name} {option.name}" for unit, option in chosen if unit.is_table]
    return [*strip(source.anatomy, schemes), *([", ".join(tables)] if tables else [])]
