"""The time left of a measurement with a deadline: bounded by it, and by how long the cases really take."""

from pathlib import Path

import numpy as np
import pytest
from edgepress.devices.kernel_table import plan
from edgepress.devices.kernel_table.plan import Pace, enough_stock, spans, written_stock
from edgepress.devices.kernel_table.table import Reading

MB = 1 << 20


class Shown:
    """A task that adds up, and a clock that is set."""

    def __init__(self) -> None:
        self.done, self.now = 0.0, 100.0

    def advance(self, amount: float = 1, detail: str = "") -> None:
        assert amount > 0, "it never goes back"
        self.done += amount

    def clock(self) -> float:
        return self.now

    def eta(self, total: float, begun: float = 100.0) -> float:
        """As :class:`edgepress.terminal.progress.Lines` shows it."""
        return (self.now - begun) * (total - self.done) / self.done


def begun(shown: Shown, planned: float = 60.0, cases: int = 2000) -> Pace:
    return Pace(shown, planned, 60.0, cases=cases, case_s=0.02, clock=shown.clock)


def test_before_anything_is_timed_it_is_what_was_planned() -> None:
    shown = Shown()
    pace = begun(shown, planned=50.0)
    shown.now += 10
    pace.tick("bandwidth")
    assert shown.eta(50.0) == pace.left_s == 40.0


def test_slow_cases_count_and_the_deadline_bounds_them() -> None:
    shown = Shown()
    pace = begun(shown)
    shown.now += 50
    for _ in range(22):
        shown.now += 0.4
        pace.case("1 threads")
    assert pace.left_s <= 1.2 + 1e-9, "2,000 cases would take a quarter of an hour"
    assert shown.eta(60.0) <= 1.2 + 1e-9


def test_quick_cases_bring_the_end_nearer() -> None:
    shown = Shown()
    pace = begun(shown)
    shown.now += 5
    for _ in range(1000):
        shown.now += 0.01
        pace.case("1 threads")
    assert 9 < pace.left_s < 13 and 9 < shown.eta(60.0) < 13
    pace.end()
    assert shown.done == 60.0


def readings(rates: dict[int, float], threads: int = 1) -> list[Reading]:
    return [
        Reading(threads=threads, working_set=size * MB, bytes_per_second=1e9 * rate)
        for size, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("rates", "enough"),
    [
        ({8: 40, 32: 14, 120: 14.5, 240: 13.3, 480: 13.4, 1024: 13.5}, 64),  # a cache that others fill
        ({8: 40, 32: 30, 120: 20, 240: 13.3, 480: 13.4, 1024: 13.5}, 480),
        ({8: 40, 32: 30, 120: 29, 240: 28, 480: 27, 1024: 13.5}, 1024),  # one that is this machine's alone
        ({8: 13, 32: 13}, 64),  # the time was over
    ],
)
def test_it_is_twice_what_memory_must_serve(rates: dict[int, float], enough: int) -> None:
    assert enough_stock(readings(rates)) == enough * MB


def test_the_number_of_threads_that_caches_help_most_decides() -> None:
    plain, helped = {8: 10.0, 100: 10.0, 200: 10.0, 400: 10.0}, {8: 20.0, 100: 15.0, 200: 10.0, 400: 10.0}
    assert enough_stock([*readings(plain), *readings(helped, 2)]) == 400 * MB
    assert enough_stock(readings(plain)) == 64 * MB


def test_working_sets_begin_small_and_end_with_the_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Processor:
        last_level_cache_bytes = 480 * MB

    monkeypatch.setattr(plan, "read_processor", Processor)
    assert [size // MB for size in spans(1024 * MB)] == [8, 32, 48, 64, 80, 96, 120, 240, 480, 720, 1024]
    assert [size // MB for size in spans(240 * MB)] == [8, 32, 48, 64, 80, 96, 120, 240]


def test_no_part_of_the_stock_is_like_another() -> None:
    with written_stock(3 * MB) as folder:
        found = np.fromfile(Path(folder) / "stock.bin", np.uint8).reshape(3, MB)
    assert not (found[0] == found[1]).all() and not (found[1] == found[2]).all()
    assert not folder.exists()
