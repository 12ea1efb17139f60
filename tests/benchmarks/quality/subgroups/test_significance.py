"""The tests' error rates against simulation, and against formulas written out."""

import math

import numpy as np
import pytest
from edgepress.benchmarks.quality.subgroups.significance import (
    LEVEL,
    POWER,
    corrected,
    more_changes,
    one_way,
    ratio_difference,
    smallest_seen,
    smallest_share_seen,
)
from hypothesis import given
from hypothesis import strategies as st


def drawn(generator: np.random.Generator, count: int, mean: float) -> np.ndarray:
    """Clusters with a difficulty of their own, harm and weight."""
    weight = generator.integers(20, 60, size=count)
    return np.stack([weight * generator.gamma(2, mean / 2, size=count), weight], axis=1)


def test_no_difference_raises_an_alarm_as_often_as_the_level_says() -> None:
    generator = np.random.default_rng(0)
    ps = [ratio_difference(drawn(generator, 20, 1.0), drawn(generator, 200, 1.0)[:20]).p for _ in range(2000)]
    assert 0.02 < np.mean(np.array(ps) < LEVEL) < 0.08


def test_a_group_that_loses_twice_as_much_is_found() -> None:
    generator = np.random.default_rng(1)
    found = [ratio_difference(drawn(generator, 40, 2.0), drawn(generator, 40, 1.0)).p for _ in range(200)]
    assert np.mean(np.array(found) < LEVEL) > 0.9


def test_the_difference_is_that_of_the_ratios_of_sums() -> None:
    group, others = np.array([[2.0, 4.0], [6.0, 4.0]]), np.array([[1.0, 4.0], [1.0, 4.0]])
    found = ratio_difference(group, others)
    assert found.value == pytest.approx(8 / 8 - 2 / 8)
    assert found.error == pytest.approx(math.sqrt(2 * ((-2 / 8) ** 2 + (2 / 8) ** 2)))


def test_one_cluster_is_no_evidence() -> None:
    assert ratio_difference(np.array([[9.0, 1.0]]), np.array([[1.0, 1.0]])).p == 1.0


def test_models_that_are_equal_give_no_evidence() -> None:
    nothing = np.array([[0.0, 3.0], [0.0, 5.0]])
    assert ratio_difference(nothing, nothing).p == 1.0


def test_fishers_test_sums_the_hypergeometric_tail() -> None:
    # All of 3 changes fall on the 4 of 8: C(4, 3) of C(8, 3) ways.
    assert more_changes(3, 4, 0, 4) == pytest.approx(4 / 56)
    assert more_changes(0, 4, 3, 4) == 1.0


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_sign_test_is_symmetric_and_a_probability(towards: int, away: int) -> None:
    assert 0 < one_way(towards, away) == one_way(away, towards) <= 1


def test_ten_changes_all_one_way_are_one_in_five_hundred() -> None:
    assert one_way(10, 0) == pytest.approx(2 / 2**10)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holms_correction_keeps_the_order_and_lies_between_p_and_bonferroni(ps: list[float]) -> None:
    found = corrected(ps)
    assert all(p <= q <= min(1.0, len(ps) * p) + 1e-12 for p, q in zip(ps, found, strict=True))
    ordered = [found[index] for index in sorted(range(len(ps)), key=lambda index: ps[index])]
    assert ordered == sorted(ordered)


def test_power_a_difference_of_the_smallest_size_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(2)
    error = 0.3
    size = smallest_seen(error, tests=1)
    found = np.mean(generator.normal(size, error, 20_000) > 1.6449 * error)
    assert 0.78 < found < 0.82
    assert smallest_seen(error, tests=100) > size
    assert smallest_seen(0.0, 1) is None and smallest_seen(math.inf, 1) is None


@pytest.mark.parametrize(
    ("count", "others_changed", "others_count"), [(20, 0, 20), (50, 45, 1000), (16, 130, 544), (10, 20, 180)]
)
def test_power_of_changed_answers_is_that_of_fishers_test(
    count: int, others_changed: int, others_count: int
) -> None:
    tests = 80
    share = smallest_share_seen(count, others_changed, others_count, tests)
    found = [
        more_changes(changed, count, others_changed, others_count) < LEVEL / tests
        for changed in range(count + 1)
    ]
    assert _chance(found, share) >= POWER > _chance(found, share - 0.002)


def _chance(found: list[bool], share: float) -> float:
    """How likely a number of changes is that is found, if each answer changes with this probability."""
    count = len(found) - 1
    return sum(
        math.comb(count, changed) * share**changed * (1 - share) ** (count - changed)
        for changed, one in enumerate(found)
        if one
    )


def test_power_of_three_answers_and_of_no_others_is_none() -> None:
    assert smallest_share_seen(3, 0, 3, 80) is None
    assert smallest_share_seen(30, 0, 0, 80) is None
    # Even of thousands it does not overflow: a third more than the others.
    assert 0.012 < smallest_share_seen(5000, 500, 50_000, 80) < 0.02
