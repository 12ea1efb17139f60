"""The time left of a measurement with a deadline: bounded by it, and by how long the cases really take."""

from edgepress.devices.kernel_table.plan import Pace


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
