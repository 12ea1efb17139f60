"""Solve, build, measure, correct, solve again: until a trial keeps every budget as measured and no better one
is predicted, or rounds or time end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..compress.api import plan_model
from ..terminal import Progress
from .budgets import DAMAGES, DISK, KL, Budget
from .candidates import Space
from .corrections import Corrections
from .found_recipe import recipe_of
from .methods import METHODS, Method
from .solve import Infeasible, Limit, Solution, solve
from .trials import Setting, Trial, damages, quality_of, recipe_text, run_trial

ROUNDS = 3  # of each method
_WORTH = 0.02  # of the objective: what a further trial must promise


@dataclass
class Search:
    """What is searched, and what was found so far.

    Attributes:
        trials: in their order. refusals: why no trial followed, in words. gap: of the last solution.
    """

    space: Space
    setting: Setting
    calibration: dict[str, Any]
    folder: Path
    ends: float
    progress: Progress
    corrections: Corrections = field(default_factory=Corrections)
    trials: list[Trial] = field(default_factory=list)
    predictions: list[dict[str, float]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    gap: float = 0.0

    @property
    def budgets(self) -> Sequence[Budget]:
        """Of the run."""
        return self.setting.budgets

    @property
    def objective(self) -> str:
        """Of the run."""
        return objective_of(self.budgets)

    def run(self) -> None:
        """Every method in its turn."""
        for method in METHODS:
            if self.trials and not self.time_for(method):
                break
            self._rounds(method)

    def _rounds(self, method: Method) -> None:
        for _ in range(ROUNDS):
            found = self.solved(method)
            if isinstance(found, Infeasible):
                self.refusals.append(f"{method.name}: {self.why(found, method)}")
                return
            if not self._promises(found, method):
                return
            self.gap = found.gap
            self._try(found.options, method)
            if not self.time_left():
                return

    def solved(self, method: Method, share: float = 1.0) -> Solution | Infeasible:
        """The best choice as predicted now; with a ``share`` of the bytes that the best above the smallest
        choice takes.
        """
        limits = self.corrections.limits(self.space, self.budgets, method)
        objective = self.space.sizes if self.objective == DISK.name else self.space.damages
        found = solve(objective, limits)
        if share == 1 or isinstance(found, Infeasible):
            return found
        sizes = Limit("share", self.space.sizes, 0.0)
        least = sum(min(row) for row in sizes.uses)
        room = least + share * (sizes.used(found.options) - least)
        return solve(objective, [*limits, replace(sizes, bound=room)])

    def _promises(self, found: Solution, method: Method) -> bool:
        """Whether the choice is another one, and predicted to be better than the best that holds."""
        if any(trial.options == found.options and trial.method == method for trial in self.trials):
            return False
        best = self.best()
        if best is None or not any(trial.method == method for trial in self.trials):
            return True
        predicted = self.corrections.predicted(self.space, found.options, method, self.budgets)
        return bool(predicted[self.objective] < (1 - _WORTH) * best.measured[self.objective])

    def _try(self, options: tuple[int, ...], method: Method) -> None:
        predicted = self.corrections.predicted(self.space, options, method, self.budgets)
        self.progress.note(
            f"trial {len(self.trials) + 1}, {method.name}: predicted {shown(predicted, self.budgets)}"
        )
        self.take(self.ran(options, method, self.progress), predicted)

    def ran(self, options: tuple[int, ...], method: Method, progress: Progress) -> Trial:
        """The trial of a choice: what is there of it is read."""
        recipe = recipe_of(self.space, options, method, self.calibration)
        return run_trial(self.setting, options, method, recipe, self.folder, progress)

    def take(self, trial: Trial, predicted: dict[str, float]) -> None:
        """Learn from a trial."""
        self.trials.append(trial)
        self.predictions.append(predicted)
        self.corrections.learn(self.space, trial.options, trial.method, trial.measured)
        broken = trial.broken(self.budgets)
        said = "holds" if not broken else "misses " + ", ".join(one.shown() for one in broken)
        measured = shown(trial.measured, self.budgets)
        self.progress.note(
            f"trial {len(self.trials)}, {trial.method.name}: measured {measured}: {said}{self._best_so_far()}"
        )

    def _best_so_far(self) -> str:
        best = self.best()
        if best is None:
            return "; none holds yet"
        return f"; best so far: trial {self.trials.index(best) + 1}"

    def time_for(self, method: Method) -> bool:
        """Whether a first trial by ``method`` ends in time, by the plan of its compression."""
        last = self.trials[-1]
        recipe = recipe_of(self.space, last.options, method, self.calibration)
        needed = last.seconds + planned_seconds(
            self.setting.model, recipe, self.setting.texts.calibration, self.folder / "planned.yaml"
        )
        if time.monotonic() + needed < self.ends:
            return True
        self.refusals.append(f"{method.name}: it needs about {needed / 60:.0f} minutes, and fewer are left")
        return False

    def time_left(self) -> bool:
        """Whether a trial like the last one ends in time."""
        return time.monotonic() + (self.trials[-1].seconds if self.trials else 0.0) < self.ends

    def refuse(self, why: str) -> None:
        """Keep the reason why no trial followed, once."""
        if why not in self.refusals:
            self.refusals.append(why)

    def said(self, values: dict[str, float]) -> str:
        """In words."""
        return shown(values, self.budgets)

    def excesses(self, trial: Trial) -> dict[str, float]:
        """By which the trial misses each budget, as a fraction of its bound; below 0 where it keeps it."""
        return {one.key: _missed(trial, one) for one in self.budgets}

    def holding(self) -> list[Trial]:
        """The trials that keep every budget, the best first."""
        kept = [trial for trial in self.trials if not trial.broken(self.budgets)]
        return sorted(kept, key=lambda trial: trial.measured[self.objective])

    def best(self) -> Trial | None:
        """The best of those that hold so far."""
        return next(iter(self.holding()), None)

    def nearest(self) -> Trial | None:
        """The trial whose excesses, as fractions of the bounds, add up to the least."""
        return min(self.trials, key=lambda trial: excess(trial, self.budgets), default=None)

    def judged(self) -> Iterator[tuple[Trial, list[Budget]]]:
        """Each trial that holds, the best first, and the budgets that it breaks on the held-out text."""
        for trial in self.holding():
            line = quality_of(self.setting, trial, self.setting.texts.held_out, self.progress)
            found = damages(line, self.budgets)
            trial.lines.append(line)
            bounded = (one for one in self.budgets if one.quantity in DAMAGES)
            broken = [one for one in bounded if not (found.get(one.key) and one.holds(found[one.key]))]
            yield trial, broken

    def why(self, found: Infeasible, method: Method) -> str:
        """Which budget would have to give way, and how far."""
        limits = {one.name: one for one in self.corrections.limits(self.space, self.budgets, method)}
        parts = []
        for budget in self.budgets:
            enough = found.enough.get(budget.key)
            if enough is not None:
                bound = self.corrections.bound_of(budget, limits[budget.key], enough, method)
                parts.append(f"{budget.shown()} would have to be {budget.quantity.shown(bound)}")
        if not parts:
            return "no budget alone is in the way: several would have to give way"
        return "with the other budgets kept, " + ", or ".join(parts)


def planned_seconds(model: str, recipe: dict[str, Any], calibration: str, file: Path) -> float:
    """Of the compression by ``recipe``, as its plan says, which reads it from ``file``."""
    file.write_text(recipe_text(recipe), encoding="utf-8")
    return float(plan_model(model, recipe=str(file), calibration=calibration).seconds)


def objective_of(budgets: Sequence[Budget]) -> str:
    """What is made least: the damage; the size where nothing but the damage is bounded."""
    return DISK.name if all(one.quantity in DAMAGES for one in budgets) else KL.name


def excess(trial: Trial, budgets: Sequence[Budget]) -> float:
    """By which the trial misses the budgets, as a sum of fractions."""
    return sum(max(0.0, _missed(trial, budget)) for budget in budgets)


def _missed(trial: Trial, budget: Budget) -> float:
    ratio = trial.measured[budget.key] / budget.bound
    return ratio - 1 if budget.quantity.side == "max" else 1 / ratio - 1


def shown(values: dict[str, float], budgets: Sequence[Budget]) -> str:
    """``disk 59.8 MB, KL 0.31``: size and damage, and whatever else is bounded."""
    quantities = {DISK.name: DISK, KL.name: KL} | {one.key: one.quantity for one in budgets}
    return ", ".join(
        f"{key} {quantity.shown(values[key])}" for key, quantity in quantities.items() if key in values
    )
