"""What learns and what is cut is rounded as the best so far, and a better cut learns too."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from edgepress.fit.budgets import Budget
from edgepress.fit.methods import LEARNING, METHODS, SOLVED, Method
from edgepress.fit.quantities import DISK
from edgepress.fit.search import Search
from edgepress.terminal import Silent

CORRECTED, CUT = METHODS[1], replace(METHODS[1], cut=SOLVED)


@dataclass
class Recorded(Search):
    """A search whose trials are made up: ``losses`` by method, in the order in which they were tried."""

    losses: dict[Method, float] = field(default_factory=dict)

    def _tried(self, method: Method, *, last: bool) -> None:
        trial: Any = SimpleNamespace(
            method=method, measured={"KL": self.losses.get(method, 9.0), DISK.name: 1.0}, broken=lambda _: []
        )
        self.trials.append(trial)


def tried(losses: dict[Method, float]) -> list[Method]:
    choices: Any = SimpleNamespace(budgets=[Budget(DISK, 2.0)], cost=lambda values: values["KL"])
    setting: Any = None
    search = Recorded(choices, setting, Path(), math.inf, Silent(), 9, losses=losses)
    search.run()
    return [one.method for one in search.trials]


@pytest.mark.parametrize("cut", [1.1, 0.95])
def test_a_cut_learns_where_it_is_better_before_anything_learned(cut: float) -> None:
    learned = replace(CORRECTED, epochs=LEARNING.epochs)
    found = tried({METHODS[0]: 1.5, CORRECTED: 1.0, learned: 0.5, CUT: cut})
    assert found[3:5] == [learned, CUT]
    assert found[5:] == ([] if cut > 1 else [replace(CUT, epochs=LEARNING.epochs)])
