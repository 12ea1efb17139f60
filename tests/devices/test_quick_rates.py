"""The rates of a plan."""

import pytest
from edgepress.devices import quick_rates as module
from edgepress.devices.quick_rates import of_one_thread, quick_rates
from pytest import MonkeyPatch, approx


def test_the_fastest_run_counts(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_fastest", lambda run: run() is None or 0.5)
    assert of_one_thread() == (2 * (64 << 20), 2 * 256**3)


def test_threads_add_to_what_one_does_in_a_process_of_its_own(monkeypatch: MonkeyPatch) -> None:
    class Child:
        returncode, stdout = 0, "[1e9, 1e10]"

    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: Child)
    one, three = quick_rates(1), quick_rates(3)
    assert (one.bytes, one.multiply_adds) == (1e9, 1e10)
    assert (three.bytes, three.multiply_adds) == approx((2.2e9, 2.6e10))


@pytest.mark.chain
def test_a_machine_reads_and_multiplies() -> None:
    found = quick_rates(1)
    assert found.bytes > 1e8 and found.multiply_adds > 1e8
