"""The plan, the warm-up rule and the clocks, on made-up time."""

from collections import Counter
from itertools import islice

import pytest
from edgepress.benchmarks.speed.protocol import Protocol, SuspendWatch, asleep_ns, timer_overhead_ns, warm_up
from edgepress.errors import InputError


def test_two_arms_take_turns_in_abba() -> None:
    order = list(islice(Protocol.turns(2), 4))
    assert order == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert Counter(turn[0] for turn in order) == {0: 2, 1: 2}
    assert list(islice(Protocol.turns(1), 3)) == [[0], [0], [0]]
    assert list(islice(Protocol.turns(3), 2)) == [[0, 1, 2], [2, 1, 0]]


def test_the_plan_is_recorded() -> None:
    recorded = Protocol(blocks=5, seed=3, most_seconds=90).describe(2, 7)
    assert (recorded["blocks"], recorded["processes"], recorded["order"], recorded["seed"]) == (
        7,
        7,
        "ABBA",
        3,
    )
    assert recorded["stop_rule"] == "until each speed is within 5 %, from 5 blocks to 90 s"
    quick = Protocol.quick().describe(1, 6)
    assert (quick["order"], quick["stop_rule"]) == ("A", "fixed number of blocks")


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"warmup_iterations": 2}])
def test_a_plan_that_measures_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Protocol(**wrong)


class Machine:
    """Work that takes a fixed time on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.now, self.calls, self.step = 0, 0, int(seconds * 1e9)

    def work(self) -> None:
        self.calls += 1
        self.now += self.step

    def clock(self) -> int:
        return self.now


@pytest.mark.parametrize(("seconds", "calls"), [(0.01, 200), (0.5, 4), (1.0, 3), (10.0, 3)])
def test_warm_up_reaches_both_its_count_and_its_time(seconds: float, calls: int) -> None:
    machine = Machine(seconds)
    done, spent = warm_up(machine.work, iterations=3, seconds=2.0, clock=machine.clock)
    assert done == machine.calls == calls
    assert spent == pytest.approx(calls * seconds)


def test_a_sleep_is_seen_and_a_pause_is_not() -> None:
    readings = iter([5_000_000_000, 5_000_010_000, 65_000_000_000])
    watch = SuspendWatch(lambda: next(readings))
    assert not watch.suspended()
    assert watch.suspended()


def test_this_machine_does_not_sleep_during_the_test() -> None:
    assert not SuspendWatch().suspended()
    assert asleep_ns() > -1_000_000
    assert timer_overhead_ns() > 0
