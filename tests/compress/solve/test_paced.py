"""What is told of a call that cannot be looked into."""

from threading import Event

import pytest
from edgepress.compress.solve import paced as module
from edgepress.compress.solve.paced import paced


def test_a_long_call_is_told_of_while_it_runs_and_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 1e-3)
    monkeypatch.setattr(module, "_probe", lambda: 1e-3)
    told, some = [], Event()

    def tick(amount: float) -> None:
        told.append(amount)
        if len(told) == 3:
            some.set()

    work = 500.0 * 768**3
    with paced(tick, work):
        assert some.wait(60)
    assert sum(told) == pytest.approx(work) and max(told[:-1]) < 0.01 * work


def test_a_short_call_is_told_of_when_it_is_done() -> None:
    told: list[float] = []
    with paced(told.append, 1000.0):
        assert told == []
    assert told == [1000.0]


def test_nothing_is_told_of_a_call_that_failed() -> None:
    told: list[float] = []
    with pytest.raises(ZeroDivisionError), paced(told.append, 1000.0):
        raise ZeroDivisionError
    assert told == []
