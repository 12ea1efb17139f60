"""What learns and what is cut is rounded as the best so far, and a better cut learns too."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgepress.fit import search as search_module
from edgepress.fit.budgets import Budget
from edgepress.fit.methods import AGAIN, LEARNING, METHODS, SOLVED, Method
from edgepress.fit.quantities import DECODE, DISK, KL, Quantity
from edgepress.fit.search import Search
from edgepress.terminal.progress import Silent

CORRECTED, CUT = METHODS[1], replace(METHODS[1], cut=SOLVED)


@dataclass
class Recorded(Search):
    """A search whose trials are made up: ``losses`` by method, in the order in which they were tried."""

    losses: dict[Method, float] = field(default_factory=dict)
    missed: Sequence[Budget] = ()

    def _tried(self, method: Method, *, last: bool) -> None:
        measured = {"KL": self.losses.get(method, 9.0), DISK.name: 1.0, "decode on here": 5.0}
        trial: Any = SimpleNamespace(
            key=method.name, method=method, measured=measured, broken=lambda _: self.missed
        )
        self.trials.append(trial)


def tried(losses: dict[Method, float], *missed: Budget) -> list[Method]:
    choices: Any = SimpleNamespace(budgets=[Budget(DISK, 2.0)], cost=lambda values: values["KL"])
    setting: Any = None
    search = Recorded(choices, setting, Path(), math.inf, Silent(), 9, losses=losses, missed=missed)
    search.run()
    return [one.method for one in search.trials]


@pytest.mark.parametrize("cut", [1.1, 0.95])
def test_a_cut_learns_where_it_is_better_before_anything_learned(cut: float) -> None:
    learned = replace(CORRECTED, epochs=LEARNING.epochs)
    found = tried({METHODS[0]: 1.5, CORRECTED: 1.0, learned: 0.5, CUT: cut})
    assert found[3:5] == [learned, CUT]
    assert found[5:] == ([] if cut > 1 else [replace(CUT, epochs=LEARNING.epochs)])


@pytest.mark.parametrize("more", [[], [Budget(KL, 0.1)]])
def test_a_cut_that_is_too_slow_as_measured_is_solved_once_more(more: list[Budget]) -> None:
    found = tried({}, Budget(DECODE, 9.0, "here"), *more)
    assert found[len(METHODS) :] == ([] if more else [replace(METHODS[0], cut=AGAIN)])


@pytest.mark.parametrize(
    ("made", "spent", "first", "affords"),
    [
        (True, 0.0, False, True),
        (False, 0.0, False, False),
        (False, 50.0, False, True),  # the most of it is there
        (False, 0.0, True, True),
    ],
)
def test_what_is_made_of_a_trial_takes_no_time(
    made: bool, spent: float, first: bool, affords: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: Any = SimpleNamespace(recipe=lambda *_: {})
    setting: Any = SimpleNamespace(key_of=lambda _: "k" * 64)
    search = Search(choices, setting, tmp_path, time.monotonic() + 30, Silent(), 9)
    trial: Any = SimpleNamespace(seconds=60.0)
    search.trials += [] if first else [trial]
    monkeypatch.setattr(Search, "_needed", lambda *_: 60.0)
    monkeypatch.setattr(search_module, "is_made", lambda *_: made)
    monkeypatch.setattr(search_module, "TrialClock", lambda _: SimpleNamespace(seconds=spent))
    assert search._affords((0,), Method(epochs=1)) == affords
    assert bool(search.refusals) != affords


@pytest.mark.parametrize(("missed", "time_is_kept"), [([], True), ([KL], True), ([DECODE, KL], False)])
def test_time_is_kept_for_learning_where_it_may_gain_what_is_missed(
    missed: list[Quantity], time_is_kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: Any = SimpleNamespace(budgets=[])
    setting: Any = None
    search = Search(choices, setting, tmp_path, time.monotonic() + 100, Silent(), 9)
    search.trials.append(SimpleNamespace(broken=lambda _: [Budget(one, 1.0) for one in missed]))  # type: ignore[arg-type]
    monkeypatch.setattr(Search, "_needed", lambda *_: 60.0)
    assert search.time_for(CORRECTED) != time_is_kept
    assert search.refusals == (
        ["awq, corrected: it needs about 60 s, and what learns after it 60 s, for which no time is left"]
        if time_is_kept
        else []
    )
