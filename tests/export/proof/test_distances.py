"""The bounds of a proof are the published ones, and hold on both sides of each."""

import numpy as np
import pytest
from edgepress.errors import GateFailed
from edgepress.export.proof.distances import (
    Floats,
    clear_margin,
    compare,
    compare_caches,
    divergence,
    elementwise_bound,
    gate,
    log_softmax,
    noise_bound,
)

VOCABULARY = 50


def test_float_graphs_may_differ_in_the_fourth_decimal_or_the_fifth_digit() -> None:
    assert elementwise_bound(0.0) == elementwise_bound(10.0) == 1e-4
    assert elementwise_bound(1000.0) == pytest.approx(1e-2)


def test_what_rounding_explains_is_three_times_its_own_size() -> None:
    assert noise_bound(0.05, 0.0) == 0.05 and noise_bound(0.05, 1.0) == 3.0


def test_a_choice_is_clear_beyond_one_nat_and_six_sigmas() -> None:
    assert clear_margin(0.0) == 1.0 and clear_margin(0.5) == pytest.approx(6.0)


def test_a_gate_ends_at_its_bound() -> None:
    gate("it", 1.0, 1.0)
    gate("it", 1.0, 1.0, at_least=True)
    for value, at_least in ((1.0001, False), (0.9999, True), (float("nan"), False), (float("nan"), True)):
        with pytest.raises(GateFailed, match="nothing was published"):
            gate("it", value, 1.0, at_least=at_least)


def peaked(positions: int, lead: float) -> Floats:
    """Logits ``[1, positions, vocab]`` that prefer token 0 by ``lead`` nats."""
    logits = np.zeros((1, positions, VOCABULARY), np.float32)
    logits[..., 0] = lead
    return logits


def flat_with(kl: float) -> Floats:
    """Logits whose KL divergence from flat ones is ``kl``."""
    low, high = 0.0, 20.0
    flat = log_softmax(np.zeros((1, 1, VOCABULARY), np.float32))
    for _ in range(60):
        middle = (low + high) / 2
        far = float(divergence(flat, log_softmax(peaked(1, middle)))[0, 0]) > kl
        low, high = (low, middle) if far else (middle, high)
    return peaked(8, low)


@pytest.mark.parametrize(("kl", "passes"), [(0.045, True), (0.055, False)])
def test_a_distribution_may_lie_a_twentieth_of_a_nat_away(kl: float, passes: bool) -> None:
    flat, ids = np.zeros((1, 8, VOCABULARY), np.float32), np.zeros((1, 8), np.int64)
    if passes:
        assert compare(flat_with(kl), flat, flat, ids, lambda: flat)["kl_mean"] == pytest.approx(kl, rel=1e-3)
        return
    with pytest.raises(GateFailed, match="KL"):
        compare(flat_with(kl), flat, flat, ids, lambda: flat)


def test_inputs_in_eight_bits_explain_what_they_cost() -> None:
    flat, ids = np.zeros((1, 8, VOCABULARY), np.float32), np.zeros((1, 8), np.int64)
    found = compare(flat_with(0.14), flat, flat, ids, lambda: flat_with(0.05))
    assert found["bounds"]["kl_mean"] == pytest.approx(0.15, rel=1e-3)
    with pytest.raises(GateFailed, match="KL"):
        compare(flat_with(0.16), flat, flat, ids, lambda: flat_with(0.05))


@pytest.mark.parametrize(("wrong", "passes"), [(2, True), (3, False)])
def test_two_of_a_hundred_clear_choices_may_change(wrong: int, passes: bool) -> None:
    reference, ids = peaked(100, 2.0), np.zeros((1, 100), np.int64)
    found = reference.copy()
    found[0, :wrong, 1] = 2.001  # the runner-up is ahead by a hair: hardly any divergence
    if passes:
        assert compare(found, reference, reference, ids, lambda: reference)["clear_positions"] == 100
        return
    with pytest.raises(GateFailed, match="where torch's choice is clear"):
        compare(found, reference, reference, ids, lambda: reference)


@pytest.mark.parametrize(("fraction", "passes"), [(0.49, True), (0.51, False), (1.0, False)])
def test_caches_may_cost_half_of_their_rounding_more(fraction: float, passes: bool) -> None:
    reference = np.random.default_rng(5).standard_normal((2, 7, VOCABULARY)).astype(np.float32)
    unrounded = reference + np.float32(0.01)
    found = reference + np.float32(0.01 * fraction)
    if passes:
        size = compare_caches(found, reference, unrounded, "a block")
        assert size["mean_of_rounding"] == pytest.approx(0.01, rel=1e-3)
        return
    with pytest.raises(GateFailed, match="caches as they ship"):
        compare_caches(found, reference, unrounded, "a block")


def test_caches_that_cost_nothing_may_differ_as_float_graphs_do() -> None:
    reference = np.zeros((1, 3, VOCABULARY), np.float32)
    assert compare_caches(reference + np.float32(9e-5), reference, reference, "a block")["bound"] == 1e-4
    with pytest.raises(GateFailed, match="caches as they ship"):
        compare_caches(reference + np.float32(2e-4), reference, reference, "a block")
