"""The rates of a plan."""

from edgepress.devices import quick_rates as module
from edgepress.devices.quick_rates import quick_rates
from pytest import MonkeyPatch, approx


def test_time_of_the_processors_counts_and_threads_add(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_fastest", lambda run: run() is None or 0.5)
    one, three = quick_rates(1), quick_rates(3)
    assert (one.bytes, one.multiply_adds) == (2 * (64 << 20), 2 * 512**3)
    assert (three.bytes, three.multiply_adds) == approx((2.2 * one.bytes, 2.6 * one.multiply_adds))


def test_a_machine_reads_and_multiplies() -> None:
    found = quick_rates(1)
    assert found.bytes > 1e8 and found.multiply_adds > 1e8
