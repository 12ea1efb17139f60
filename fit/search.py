"""Solve, build, measure, correct, solve again: until a trial keeps every budget as measured and no better one
is predicted, or rounds or time end.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import GateFailed, InputError
from ..terminal.progress import Progress, time_in_words
from .budgets import Budget
from .candidates import Space
from .choices import Choices
from .figures import qualities
from .methods import AGAIN, LEARNING, METHODS, SOLVED, SOLVED_CUTS, Method
from .planned_time import cutting_seconds, planned_seconds
from .quantities import DISK, TIMED
from .setting import Setting
from .solve import Infeasible, Solution
from .trials import Trial, TrialClock, directory_of, is_made, quality_of, run_trial

ROUNDS = 3  # of each method
_WORTH = 0.02  # of the objective: what a further trial must promise


@dataclass
class Search:
    """What is searched, and what was found so far.

    Attributes:
        most: trials that there may be. trials: in their order. refusals: why no trial followed, in words.
            gap: of the last solution. failed: what held-out data gave for the trials that broke a budget
            there, by their key.
    """

    choices: Choices
    setting: Setting
    folder: Path
    ends: float
    progress: Progress
    most: int
    trials: list[Trial] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    gap: float = 0.0
    failed: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """Of the whole model."""
        return self.choices.space

    @property
    def budgets(self) -> Sequence[Budget]:
        """Of the run."""
        return self.choices.budgets

    def run(self) -> None:
        """Every method in its turn; the best of those before it with learning, for which time is kept, and
        what a cut leaves too, where that is better before anything learned. A cut that is not fast enough as
        measured is solved once more.
        """
        for method in METHODS:
            self._tried(self._like_the_best(method), last=method == METHODS[-1])
        if self._cut_too_little():
            self._tried(self._like_the_best(Method(scaled=True, cut=AGAIN)), last=False)
        best = self.best(rounded=True)
        if best is not None and best.method.cut and LEARNING in METHODS:
            self._tried(replace(best.method, epochs=LEARNING.epochs), last=False)

    def _cut_too_little(self) -> bool:
        """Whether nothing holds, and what is missed with a cut are budgets of speed."""
        cut = [trial for trial in self.trials if trial.method.cut == SOLVED]
        missed = {one.quantity for trial in cut for one in trial.broken(self.budgets)}
        return bool(missed) and missed <= set(TIMED) and self.best() is None

    def _like_the_best(self, method: Method) -> Method:
        """What learns and what is cut is rounded as the best so far that did not learn."""
        best = self.best(rounded=True) or self.nearest()
        if best is None or not (method.epochs or method.cut):
            return method
        return replace(best.method, epochs=method.epochs, cut=method.cut)

    def _tried(self, method: Method, *, last: bool) -> None:
        wants_cut = method.cut in SOLVED_CUTS and not self.choices.spaces.is_ready(method.cut)
        if wants_cut and self.trials and not self.time_for(method):
            return
        try:
            self._rounds(method)
        except (GateFailed, InputError) as error:
            if last and not self.trials:
                raise
            # What this method cannot do to this model, or not well enough for its proof; others may.
            self.refuse(f"{method.name}: {error.what}")

    def _rounds(self, method: Method) -> None:
        if method.cut in SOLVED_CUTS and not self.choices.spaces.profile(method.cut):
            self.refuse(f"{method.name}: no cut of heads, channels or blocks is predicted to be better")
            return
        for _ in range(ROUNDS):
            method, found = self.choices.with_cache(method)
            if isinstance(found, Infeasible):
                self.refusals.append(f"{method.name}: {self.choices.why(found, method)}")
                return
            if not self._promises(found, method) or not self._affords(found.options, method):
                return
            self.gap = found.gap
            self._try(found.options, method)

    def _promises(self, found: Solution, method: Method) -> bool:
        """Whether the choice is another one, and predicted to be better than the best that holds."""
        if any(trial.options == found.options and trial.method == method for trial in self.trials):
            return False
        best = self.best()
        if best is None or not any(trial.method == method for trial in self.trials):
            return True
        return self.choices.cost(self.choices.predicted(found.options, method)) < (
            1 - _WORTH
        ) * self.choices.cost(best.measured)

    def _try(self, options: tuple[int, ...], method: Method) -> None:
        predicted = self.choices.predicted(options, method)
        self.progress.note(f"trial {len(self.trials) + 1}, {method.name}: predicted {self.said(predicted)}")
        self.take(self.ran(options, method, predicted, self.progress))

    def ran(
        self, options: tuple[int, ...], method: Method, predicted: dict[str, float], progress: Progress
    ) -> Trial:
        """The trial of a choice: what is there of it is read."""
        recipe = self.choices.recipe(options, method)
        return run_trial(self.setting, options, method, recipe, predicted, self.folder, progress)

    def key(self, options: tuple[int, ...], method: Method) -> str:
        """That of the trial of a choice."""
        return self.setting.key_of(self.choices.recipe(options, method))

    def take(self, trial: Trial) -> None:
        """Learn from a trial."""
        self.trials.append(trial)
        self.choices.learn(trial)
        broken = trial.broken(self.budgets)
        said = "holds" if not broken else "misses " + ", ".join(one.shown() for one in broken)
        measured = self.said(trial.measured)
        self.progress.note(
            f"trial {len(self.trials)}, {trial.method.name}: measured {measured}: {said}{self._best_so_far()}"
            f"; {self._left()}"
        )

    def _left(self) -> str:
        trials = max(0, self.most - len(self.trials))
        took = sum(trial.seconds for trial in self.trials) / len(self.trials)
        seconds = max(0.0, min(self.ends - time.monotonic(), trials * took))
        return f"at most {trials} trials left, {time_in_words(seconds)}"

    def _best_so_far(self) -> str:
        best = self.best()
        if best is None:
            return "; none holds yet"
        return f"; best so far: trial {self.trials.index(best) + 1}"

    def _affords(self, options: tuple[int, ...], method: Method) -> bool:
        """Whether there is time for the trial of a choice: the first is always made, and what is made of
        others takes none.
        """
        directory = directory_of(self.key(options, method), self.folder)
        if not self.trials or is_made(self.setting, directory):
            return True
        return self.time_for(method, spent=TrialClock(directory).seconds)

    def time_for(self, method: Method, *, spent: float = 0.0) -> bool:
        """Whether a trial by ``method`` ends in time, on which so many seconds were ``spent``, and a learning
        one after it, where that is in reach and may gain what is missed.
        """
        left, needed = self.ends - time.monotonic(), max(0.0, self._needed(method) - spent)
        learning = 0.0
        if not method.epochs and self._may_learn():
            learning = self._needed(replace(method, epochs=LEARNING.epochs))
        kept = learning if learning < left else 0.0
        if needed + kept < left:
            return True
        after = f", and what learns after it {time_in_words(kept)}" if kept else ""
        needs = f"it needs about {time_in_words(needed)}{after}"
        self.refuse(f"{method.name}: {needs}, for which no time is left")
        return False

    def _may_learn(self) -> bool:
        """Whether a trial keeps all budgets but those of quality, the only ones that learning changes."""
        return any(
            all(budget.quantity.of_quality for budget in trial.broken(self.budgets)) for trial in self.trials
        )

    def _needed(self, method: Method) -> float:
        """Seconds of a trial: those of the last one, and what the plan says that compressing takes more."""
        last = self.trials[-1]
        cut: dict[str, Any] = {"cut": last.method.cut, "recovered": last.method.recovered}
        plans = [
            planned_seconds(
                self.choices.spaces.source, self.choices.recipe(last.options, replace(one, **cut))
            )
            for one in (last.method, method)
        ]
        return last.seconds + plans[1] - plans[0] + self._cutting(method)

    def _cutting(self, method: Method) -> float:
        """Seconds until there is a cut to try, where none was made."""
        spaces = self.choices.spaces
        if method.cut not in SOLVED_CUTS or spaces.is_ready(method.cut):
            return 0.0
        return cutting_seconds(spaces.source, self.choices.calibration)

    def time_left(self) -> bool:
        """Whether a trial like the last one ends in time."""
        return time.monotonic() + (self.trials[-1].seconds if self.trials else 0.0) < self.ends

    def refuse(self, why: str) -> None:
        """Keep the reason why no trial followed, once."""
        if why not in self.refusals:
            self.refusals.append(why)

    def said(self, values: dict[str, float]) -> str:
        """In words."""
        return shown(values, self.space, self.budgets)

    def excesses(self, trial: Trial) -> dict[str, float]:
        """By which the trial misses each budget, as a fraction of its bound; below 0 where it keeps it."""
        return {one.key: _missed(trial, one) for one in self.budgets}

    def holding(self) -> list[Trial]:
        """The trials that keep every budget, the best first."""
        kept = [one for one in self.trials if not one.broken(self.budgets) and one.key not in self.failed]
        return sorted(kept, key=lambda trial: self.choices.cost(trial.measured))

    def best(self, *, rounded: bool = False) -> Trial | None:
        """The best of those that hold so far; ``rounded``: that did not learn."""
        return next((one for one in self.holding() if not (rounded and one.method.epochs)), None)

    def nearest(self) -> Trial | None:
        """The trial whose excesses, as fractions of the bounds, add up to the least."""
        return min(self.trials, key=lambda trial: excess(trial, self.budgets), default=None)

    def judged(self) -> Iterator[tuple[Trial, list[Budget]]]:
        """Each trial that holds, the best first, and the budgets that it breaks on held-out data."""
        for trial in self.holding():
            line = quality_of(self.setting, trial, self.setting.texts.held_out, self.progress)
            trial.lines.append(line)
            values = qualities(line, self.budgets)
            judging = [one for one in self.budgets if one.quantity.of_quality]
            broken = [one for one in judging if not one.holds(values[one.key])]
            if broken:
                self.failed[trial.key] = values
            yield trial, broken

    def tightened(self) -> bool:
        """Search once more under budgets of quality that leave room for what held-out data lost beyond the
        development data; whether there was a trial to learn that from, and time.
        """
        trials = [trial for trial in self.trials if trial.key in self.failed]
        if not trials or not self.time_left():
            return False
        budgets = [_tightened(one, trials, self.failed) for one in self.budgets]
        given = self.choices
        self.choices = replace(given, budgets=budgets)
        self.run()
        self.choices = given
        return bool(self.holding())


def _tightened(
    budget: Budget, trials: Sequence[Trial], held_out: Mapping[str, Mapping[str, float]]
) -> Budget:
    """The budget with the largest margin that one of ``trials`` would have needed."""
    if not budget.quantity.of_quality:
        return budget
    pairs = [(trial.measured[budget.key], held_out[trial.key][budget.key]) for trial in trials]
    if budget.quantity.side == "max":
        return replace(budget, bound=budget.bound * min(1.0, *(here / there for here, there in pairs)))
    return replace(budget, bound=budget.bound + max(0.0, *(here - there for here, there in pairs)))


def excess(trial: Trial, budgets: Sequence[Budget]) -> float:
    """By which the trial misses the budgets, as a sum of fractions."""
    return sum(max(0.0, _missed(trial, budget)) for budget in budgets)


def _missed(trial: Trial, budget: Budget) -> float:
    ratio = trial.measured[budget.key] / budget.bound
    return ratio - 1 if budget.quantity.side == "max" else 1 / ratio - 1


def shown(values: Mapping[str, float], space: Space, budgets: Sequence[Budget]) -> str:
    """``disk 59.8 MB, KL 0.31``: size and what is judged, and whatever else is bounded."""
    quantities = {one.name: one for one in (DISK, space.judged)} | {one.key: one.quantity for one in budgets}
    return ", ".join(
        f"{key} {quantity.shown(values[key])}" for key, quantity in quantities.items() if key in values
    )
