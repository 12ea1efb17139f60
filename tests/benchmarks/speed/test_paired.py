"""Verdicts on synthetic arms: equal, faster, slower, noisy, too few."""

from itertools import product

import numpy as np
import pytest
from edgepress.benchmarks.speed.paired import MIN_PAIRS, PairedComparison, compare_rates, sign_test

PAIRS = 10


def arms(seed: int, *, effect: float = 1.0, noise: float = 0.01, drift: float = 0.3) -> PairedComparison:
    """Two arms under common drift and their own noise; ``effect`` is the true ratio."""
    generator = np.random.default_rng(seed)
    speed = 100 * (1 + drift * np.linspace(0, 1, PAIRS))
    subject = effect * speed * generator.lognormal(0, noise, PAIRS)
    baseline = speed * generator.lognormal(0, noise, PAIRS)
    return compare_rates(list(subject), list(baseline), seed=seed)


@pytest.mark.chain
def test_equal_arms_are_not_told_apart() -> None:
    verdicts = [arms(seed).verdict for seed in range(20)]
    assert sum(verdict in ("same", "invalid") for verdict in verdicts) >= 19
    assert verdicts.count("same") >= 18


@pytest.mark.chain
def test_five_per_cent_is_found() -> None:
    assert sum(arms(seed, effect=1.05).verdict == "faster" for seed in range(20)) >= 19
    assert sum(arms(seed, effect=1 / 1.05).verdict == "slower" for seed in range(20)) >= 19


def test_drift_cancels_in_pairs() -> None:
    found = arms(0, effect=1.05, noise=0.001, drift=5.0)
    assert found.verdict == "faster"
    assert found.ratio_median == pytest.approx(1.05, abs=0.003)


def test_noise_is_no_verdict() -> None:
    found = arms(3, noise=0.4)
    assert found.verdict == "invalid"
    assert found.reason.startswith("noisy")
    assert found.ci95 is not None and found.ci95[0] < 1 < found.ci95[1]


@pytest.mark.chain
def test_on_a_disturbed_machine_only_large_effects_count() -> None:
    clear = compare_rates([300.0] * 8, [100.0] * 8, noisy=True)
    slight = compare_rates([105.0] * 8, [100.0] * 8, noisy=True)
    equal = compare_rates([100.0] * 8, [100.0] * 8, noisy=True)
    assert (clear.verdict, slight.verdict, equal.verdict) == ("faster", "invalid", "invalid")
    assert "disturbed" in slight.reason
    assert compare_rates([100.0] * 8, [300.0] * 8, noisy=True).verdict == "slower"
    assert compare_rates([105.0] * 8, [100.0] * 8).verdict == "faster"


def test_too_few_pairs() -> None:
    found = compare_rates([2.0] * (MIN_PAIRS - 1), [1.0] * (MIN_PAIRS - 1))
    assert (found.verdict, found.ratio_median, found.ci95) == ("invalid", None, None)
    assert str(MIN_PAIRS) in found.reason


def test_an_unusable_block_takes_its_pair_along() -> None:
    subject: list[float | None] = [2.0] * 8
    baseline: list[float | None] = [1.0] * 8
    subject[0], baseline[1] = None, None
    assert compare_rates(subject, baseline).n_pairs == 6


def test_one_pair_against_the_rest_spoils_six() -> None:
    assert compare_rates([2.0, 2.0, 2.0, 2.0, 2.0, 0.9], [1.0] * 6).verdict == "invalid"


@pytest.mark.parametrize("pairs", [1, 2, 5, 8])
def test_sign_test_against_enumeration(pairs: int) -> None:
    outcomes = list(product((0, 1), repeat=pairs))
    for wins in range(pairs + 1):
        tail = sum(sum(outcome) >= wins for outcome in outcomes) / len(outcomes)
        assert sign_test(wins, pairs) == pytest.approx(min(1, 2 * tail))


def test_document() -> None:
    document = compare_rates([3.0] * 6, [2.0] * 6).as_dict()
    assert document == {
        "ratio_median": 1.5,
        "ci95": (1.5, 1.5),
        "n_pairs": 6,
        "verdict": "faster",
        "reason": "",
    }
