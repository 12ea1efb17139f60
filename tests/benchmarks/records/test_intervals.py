"""The bootstrap interval: seeded, ordered, and as wide as the theory says."""

from __future__ import annotations

import numpy as np
import pytest
from edgepress.benchmarks.records.intervals import bootstrap_ci
from hypothesis import given, settings
from hypothesis import strategies as st


def mean(rows: np.ndarray) -> float:
    return float(rows.mean())


def test_needs_two_rows() -> None:
    assert bootstrap_ci([], mean) is None
    assert bootstrap_ci([3.0], mean) is None


def test_seed_decides_the_interval() -> None:
    values = np.random.default_rng(1).normal(size=20)
    assert bootstrap_ci(values, mean, 7) == bootstrap_ci(values, mean, 7)
    assert bootstrap_ci(values, mean, 7) != bootstrap_ci(values, mean, 8)


def test_width_matches_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(loc=5, scale=2, size=400)
    interval = bootstrap_ci(values, mean)
    assert interval is not None
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval[0] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval[1] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        interval = bootstrap_ci(generator.normal(size=30), mean, trial, resamples=300)
        assert interval is not None
        hits += interval[0] <= 0 <= interval[1]
    assert 0.88 <= hits / 200 <= 0.99


def test_rows_stay_whole() -> None:
    left = np.random.default_rng(4).uniform(1, 100, size=15)
    interval = bootstrap_ci(
        np.stack([left, 2 * left], axis=1), lambda r: float(r[:, 1].sum() / r[:, 0].sum())
    )
    assert interval == pytest.approx((2, 2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.integers(0, 5))
def test_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    interval = bootstrap_ci(values, lambda rows: float(np.median(rows)), seed, resamples=50)
    assert interval is not None
    assert min(values) <= interval[0] <= interval[1] <= max(values)
