"""``Choices``: the best choice of the parts of a model for a method, as predicted now, and its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .budgets import Budget
from .candidates import Space
from .corrections import Corrections, damages_by, objective_of
from .found_recipe import recipe_of
from .methods import Method
from .quantities import DISK
from .solve import Infeasible, Limit, Solution, solve_any
from .spaces import Spaces
from .trials import Trial
from .uniform import solve_uniform


@dataclass(frozen=True)
class Choices:
    """Of the candidates ``spaces`` under ``budgets``; ``calibration`` is that section of a recipe.

    Attributes:
        corrections: what trials have shown of the predictions.
    """

    spaces: Spaces
    budgets: Sequence[Budget]
    calibration: Mapping[str, Any]
    corrections: Corrections

    @property
    def space(self) -> Space:
        """Of the whole model."""
        return self.spaces.of()

    @property
    def objective(self) -> str:
        """The name of what is made best."""
        return objective_of(self.space, self.budgets)

    def cost(self, values: Mapping[str, float]) -> float:
        """What is made least, of measured or predicted ``values``."""
        judged = self.space.judged
        return values[DISK.name] if self.objective == DISK.name else judged.lost(values[judged.name])

    def with_cache(self, method: Method) -> tuple[Method, Solution | Infeasible]:
        """The method with its best choice; and with the cache that is predicted to be better, where what it
        takes is bounded.
        """
        if method.packaged or not self.spaces.cache_counts(self.spaces.of(method.space)):
            return method, self.solved(method)
        both = [replace(method, cached=cached) for cached in (False, True)]
        solved = {one: self.solved(one) for one in both}
        costs = {
            one: self.cost(self.predicted(found.options, one))
            for one, found in solved.items()
            if not isinstance(found, Infeasible)
        }
        best = min(costs, key=costs.__getitem__) if costs else both[-1]
        return best, solved[best]

    def solved(self, method: Method, share: float = 1.0) -> Solution | Infeasible:
        """The best choice as predicted now; with a ``share`` of the bytes that the best above the smallest
        choice takes.
        """
        space = self.spaces.of(method.space)
        sets = self.corrections.limits(space, self.budgets, method)
        objective = space.sizes if self.objective == DISK.name else damages_by(space, method)
        if method.uniform:
            return solve_uniform(space, objective, sets)
        found = solve_any(objective, sets)
        if share == 1 or isinstance(found, Infeasible):
            return found
        sizes = Limit("share", space.sizes, 0.0)
        least = sum(min(row) for row in sizes.uses)
        room = least + share * (sizes.used(found.options) - least)
        return solve_any(objective, [[*limits, replace(sizes, bound=room)] for limits in sets])

    def predicted(self, options: tuple[int, ...], method: Method) -> dict[str, float]:
        """What a trial is expected to measure."""
        return self.corrections.predicted(self.spaces.of(method.space), options, method, self.budgets)

    def recipe(self, options: tuple[int, ...], method: Method) -> dict[str, Any]:
        """The recipe of a trial."""
        tokens = self.spaces.calibration.tokens_of_a_sample
        return recipe_of(self.spaces.of(method.space), options, method, dict(self.calibration), tokens)

    def learn(self, trial: Trial) -> None:
        """Correct the predictions by what a trial measured."""
        space = self.spaces.of(trial.method.space)
        self.corrections.learn(space, trial.options, trial.method, trial.measured, trial.originals)

    def why(self, found: Infeasible, method: Method) -> str:
        """Which budget would have to give way, and how far."""
        space = self.spaces.of(method.space)
        limits = {one.name: one for one in self.corrections.limits(space, self.budgets, method)[-1]}
        parts = []
        for budget in self.budgets:
            enough = found.enough.get(budget.key)
            if enough is not None:
                bound = self.corrections.bound_of(space, budget, limits[budget.key], enough, method)
                parts.append(f"{budget.shown()} would have to be {_other(budget, bound)}")
        if not parts:
            return "no budget alone is in the way: several would have to give way"
        return "with the other budgets kept, " * (len(self.budgets) > 1) + ", or ".join(parts)


def _other(budget: Budget, bound: float) -> str:
    """Another bound of the budget, in words also where its first digits are the same."""
    quantity = budget.quantity
    said = quantity.shown(bound)
    if said != quantity.shown(budget.bound):
        return said
    return f"a little {'more' if quantity.side == 'max' else 'less'}"
