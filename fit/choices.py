"""``Choices``: the best choice of the parts of a model for a method, as predicted now, and its recipe.

The best choice with one scheme for all linears, as packaged recipes have it. Predicted losses are of parts
rounded one by one; how much of them learning takes back is not predicted, and may be less of a mixture.

A choice as a plain recipe, which ``compress -r`` repeats: the scheme of every linear, of embedding and
head, and how the codes are found.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..compress.numbers.table_scheme import kept_on_grid, table_scheme
from ..errors import InputError
from .budgets import Budget
from .candidates import Space, Unit
from .corrections import Corrections, damages_by, objective_of
from .losses import packaged_recipe
from .methods import Method
from .quantities import DISK
from .solve import Infeasible, Limit, Solution, Table, solve_any
from .spaces import Spaces
from .trials import Trial

Places = Sequence[Sequence[int]]  # of the options that each unit is left
# What linears are rounded by: four times what packaged recipes read, which are to be quick.
_ROUNDED_TOKENS = 32_768


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


def recipe_of(
    space: Space,
    options: Sequence[int],
    method: Method,
    calibration: dict[str, Any],
    tokens: float | None = None,
) -> dict[str, Any]:
    """The recipe for one option of every unit, or the packaged one; ``calibration`` is that section of it.
    ``tokens``: of a sample, in the mean, which are fewer than its length where samples are paragraphs.
    """
    if method.packaged:
        return packaged_recipe(method.packaged, calibration)
    chosen = space.chosen(options)
    plan = {
        name: option.scheme.name
        for unit, option in chosen
        if not unit.is_table and option.scheme is not None
        for name in unit.modules
    }
    if not plan:
        raise InputError(
            "these budgets leave nothing to compress: every linear may stay in float32",
            fix="export the model as it is, or set a smaller budget",
        )
    tables = [
        None if option.scheme is None else option.scheme.name for unit, option in chosen if unit.is_table
    ]
    samples = max(1, int(_ROUNDED_TOKENS / (tokens or calibration["length"])))
    samples = min(samples, calibration.get("samples", samples))  # a recipe names no more than it has
    return {
        "name": "fit",
        "passes": method.passes(
            plan,
            _rounded(space, tables),
            tied=len(tables) < 2,
            samples=None if space.hears else samples,
            first=space.first,
        ),
        "embedding": tables[0] if tables else None,
        # One that is stored as the embedding is not named: a pass that rounds both says it in this way.
        **({"head": tables[1]} if len(set(tables)) > 1 else {}),
        "calibration": calibration,
    }


def _rounded(space: Space, tables: Sequence[str | None]) -> list[dict[str, Any]]:
    """The pass that rounds embedding and head, where it does so in all of their schemes."""
    schemes = [table_scheme(name) for name in tables if name is not None]
    if (
        not tables
        or not space.solves_tables
        or len(schemes) < len(tables)
        or not all(map(kept_on_grid, schemes))
    ):
        return []
    own = {"head": tables[1]} if len(tables) > 1 else {}
    return [{"pass": "embedding", "scheme": tables[0], **own}]
