"""Ten planted impossibilities, and the ceiling under the best bandwidth seen."""

from __future__ import annotations

import pytest
from edgepress.benchmarks.records.summary import summarize
from edgepress.benchmarks.speed import roofline
from edgepress.benchmarks.speed.roofline import Roofline, best, impossible, measure_both
from edgepress.devices.bandwidth import SMALLEST, Bandwidth


def rate(gb_per_second: float, working_set: int = 1 << 28) -> Bandwidth:
    return Bandwidth(gb_per_second * 1e9, working_set, 2, (gb_per_second * 1e9,))


@pytest.mark.parametrize("factor", [1.051, 1.06, 1.1, 1.2, 1.5, 2, 3, 10, 100, 1e6])
def test_planted_impossibilities_are_found(factor: float) -> None:
    ceiling = 377.0
    reason = impossible(factor * ceiling, ceiling)
    assert reason is not None and reason.startswith("impossible")


@pytest.mark.parametrize("factor", [0.01, 0.5, 0.9, 1.0, 1.05])
def test_possible_rates_pass(factor: float) -> None:
    assert impossible(factor * 377.0, 377.0) is None


def test_no_rate_is_not_impossible() -> None:
    assert impossible(None, 1.0) is None


def test_the_ceiling_is_bandwidth_over_bytes() -> None:
    roof = Roofline(80_000_000, at_weights=rate(40), at_memory=rate(30))
    assert roof.ceiling == 500
    recorded = roof.describe(summarize([240.0, 250.0, 260.0], "tok/s", "higher"))
    assert recorded["fraction"] == 0.5
    assert recorded["ceiling_tps"] == 500
    assert recorded["bandwidth_of_memory"]["gb_per_second"] == 30


def test_noise_lowers_bandwidth_so_the_best_counts() -> None:
    roof = best([(rate(22), rate(20)), (rate(60), rate(35)), (rate(31), rate(40))], 1_000_000)
    assert (roof.at_weights.bytes_per_second, roof.at_memory.bytes_per_second) == (60e9, 40e9)


@pytest.mark.parametrize(
    ("weights", "asked"),
    [(76 << 20, [256 << 20, 76 << 20]), (1000, [256 << 20, SMALLEST]), (4 << 30, [256 << 20])],
)
def test_working_sets(weights: int, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights' own size is measured beside main memory; larger weights are main memory."""
    seen: list[int] = []

    def fake(working_set: int, *, threads: int) -> Bandwidth:
        seen.append(working_set)
        return rate(10, working_set)

    monkeypatch.setattr(roofline, "measure_bandwidth", fake)
    at_weights, at_memory = measure_both(weights, 32 << 20, threads=1)
    assert seen == asked
    assert at_memory.working_set == 256 << 20
    assert at_weights.working_set == asked[-1]
