"""Summaries and bootstrap intervals against plain definitions; percentiles only where the count allows."""

import statistics

import numpy as np
import pytest
from edgepress.benchmarks.records.summary import bootstrap_ci, mad, medians, percentile, summarize
from hypothesis import given, settings
from hypothesis import strategies as st

positive = st.floats(min_value=1e-6, max_value=1e9)


@pytest.mark.parametrize(
    ("count", "p", "there"),
    [
        (99, 0.90, False),
        (100, 0.90, True),
        (199, 0.95, False),
        (200, 0.95, True),
        (999, 0.99, False),
        (1000, 0.99, True),
    ],
)
def test_a_percentile_rests_on_ten_samples(count: int, p: float, there: bool) -> None:
    assert (percentile([float(i) for i in range(count)], p) is not None) == there


def test_percentile_is_the_quantile() -> None:
    samples = np.random.default_rng(0).lognormal(size=1500)
    assert percentile(list(samples), 0.99) == pytest.approx(float(np.quantile(samples, 0.99)))


@pytest.mark.chain
@settings(deadline=None, max_examples=60)
@given(st.lists(positive, min_size=1, max_size=40))
def test_summary_against_the_standard_library(samples: list[float]) -> None:
    found = summarize(samples, "ms", "lower")
    median = statistics.median(samples)
    assert found.value == pytest.approx(median)
    assert found.mad == pytest.approx(statistics.median([abs(value - median) for value in samples]))
    assert found.mean == pytest.approx(statistics.fmean(samples))
    assert (found.min, found.max, found.n) == (min(samples), max(samples), len(samples))
    assert (found.sd is None) == (len(samples) == 1)
    assert found.p90 is found.p99 is None
    assert f"need more than {len(samples)} samples" in found.reason
    if found.ci95 is None:
        assert len(samples) < 5
    else:
        assert min(samples) <= found.ci95[0] <= found.ci95[1] <= max(samples)


def test_percentiles_come_from_the_observations() -> None:
    observed = [float(i) for i in range(1000)]
    found = summarize([1.0, 2.0, 3.0], "ms", "lower", observed=observed)
    assert (found.n, found.value) == (3, 2.0)
    assert found.p90 == pytest.approx(899.1)
    assert found.p99 == pytest.approx(989.01)
    assert found.reason == ""


def test_only_the_missing_percentile_is_explained() -> None:
    found = summarize([1.0], "ms", "lower", observed=[1.0] * 500)
    assert found.p90 == 1.0
    assert found.reason == "p99 need more than 500 samples"


def test_no_sample_is_null_and_says_why() -> None:
    found = summarize([], "ms", "lower")
    assert (found.value, found.n) == (None, 0)
    assert found.reason


def test_mad_ignores_an_outlier() -> None:
    assert mad([1.0, 2.0, 3.0, 4.0, 1000.0]) == 1.0


def mean(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.mean(axis=-1))


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


@pytest.mark.chain
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
        np.stack([left, 2 * left], axis=1), lambda r: r[..., 1].sum(axis=-1) / r[..., 0].sum(axis=-1)
    )
    assert interval == pytest.approx((2, 2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.integers(0, 5))
def test_interval_lies_within_the_values(values: list[float], seed: int) -> None:
    interval = bootstrap_ci(values, medians, seed, resamples=50)
    assert interval is not None
    assert min(values) <= interval[0] <= interval[1] <= max(values)
