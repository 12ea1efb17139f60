"""Sampling against naive references written as loops over all tokens."""

import math
from collections import Counter

import numpy as np
import pytest
from edgepress.errors import BundleError, InputError
from edgepress.runtime.engine.sampling import Sampler, Sampling, candidates, nucleus, penalize, top_k
from hypothesis import given, settings
from hypothesis import strategies as st

# Logits are equal or so far apart that their exponentials differ too: else which of two comes first is a
# matter of rounding.
logits_lists = st.lists(
    st.integers(-30_000, 30_000).map(lambda value: value / 1000) | st.sampled_from([0.0, 1.0, 1.0, -1.0]),
    min_size=1,
    max_size=40,
)


def _as_logits(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def _best_first(values: list[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda index: (-values[index], index))


def _reference_candidates(logits: list[float], temperature: float, k: int, p: float) -> dict[int, float]:
    """Temperature, then top-k, then top-p, one token at a time."""
    chosen = _best_first(logits)[: k or None]
    largest = max(logits)
    weight = {token: math.exp((logits[token] - largest) / temperature) for token in chosen}
    total = sum(weight.values())
    kept: dict[int, float] = {}
    for token in sorted(chosen, key=lambda token: (-weight[token], token)):
        if p < 1 and kept and sum(kept.values()) / total >= p:  # 1 is off
            break
        kept[token] = weight[token]
    mass = sum(kept.values())
    return {token: value / mass for token, value in kept.items()}


@pytest.mark.chain
@given(logits_lists, st.integers(0, 50))
def test_top_k_is_the_head_of_a_sort(values: list[float], k: int) -> None:
    logits = _as_logits(values)
    found = top_k(logits, k).tolist()
    if 0 < k < len(values):
        assert found == _best_first(logits.tolist())[:k]
    else:
        assert found == list(range(len(values)))


@pytest.mark.chain
@given(logits_lists, st.floats(0.01, 0.999))
def test_nucleus_is_the_shortest_prefix_that_reaches_p(values: list[float], p: float) -> None:
    weights = np.exp(np.array(values) - max(values))
    probabilities = weights / weights.sum()
    found = nucleus(probabilities, p)
    assert found.tolist() == _best_first(probabilities.tolist())[: len(found)]
    assert probabilities[found].sum() >= p - 1e-9
    assert probabilities[found[:-1]].sum() < p


@pytest.mark.chain
@settings(max_examples=200)
@given(logits_lists, st.floats(0.05, 5), st.integers(0, 12), st.floats(0.05, 1))
def test_candidates_equal_the_reference(values: list[float], temperature: float, k: int, p: float) -> None:
    logits = _as_logits(values)
    ids, probabilities = candidates(logits, Sampling(temperature, k, p))
    expected = _reference_candidates(logits.tolist(), temperature, k, p)
    found = dict(zip(ids.tolist(), probabilities.tolist(), strict=True))
    # Where the mass meets p to the last bit, one token more or less is as right.
    if len(found) == len(expected):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
    else:
        assert abs(len(found) - len(expected)) == 1
        assert set(found) <= set(expected) or set(expected) <= set(found)
    assert probabilities.sum() == pytest.approx(1)


@pytest.mark.chain
@given(logits_lists, st.floats(0.1, 10), st.data())
def test_penalty_equals_the_reference(values: list[float], penalty: float, data: st.DataObject) -> None:
    logits = _as_logits(values)
    seen = data.draw(st.lists(st.integers(0, len(values) - 1), unique=True))
    expected = [
        (value / penalty if value > 0 else value * penalty) if token in seen else value
        for token, value in enumerate(logits.tolist())
    ]
    before = logits.copy()
    assert penalize(logits, np.array(seen, np.int64), penalty).tolist() == pytest.approx(expected, rel=1e-5)
    assert np.array_equal(logits, before)


@pytest.mark.chain
@given(logits_lists)
def test_greedy_takes_the_first_of_the_largest(values: list[float]) -> None:
    logits = _as_logits(values)
    assert Sampler(Sampling()).choose(logits) == _best_first(logits.tolist())[0]


def test_a_seed_repeats_itself_and_others_differ() -> None:
    logits = np.zeros(1000, np.float32)

    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1, seed=seed))
        return [sampler.choose(logits) for _ in range(20)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


@pytest.mark.chain
def test_frequencies_follow_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(Sampling(temperature=1, seed=0))
    count = Counter(sampler.choose(np.log(probabilities).astype(np.float32)) for _ in range(20_000))
    for token, probability in enumerate(probabilities):
        # Five standard deviations of a binomial share.
        assert abs(count[token] / 20_000 - probability) < 5 * math.sqrt(probability / 20_000)


def test_what_top_k_and_top_p_drop_is_never_drawn() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    by_count = Sampler(Sampling(temperature=1, top_k=2, seed=0))
    by_mass = Sampler(Sampling(temperature=1, top_p=0.69, seed=0))
    assert {by_count.choose(logits) for _ in range(300)} == {0, 1}
    assert {by_mass.choose(logits) for _ in range(300)} == {0, 1}


def test_the_penalty_counts_the_prompt_and_what_was_chosen() -> None:
    logits = np.array([2.0, 1.9, 1.8, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=1.5), context=[0, 99])
    assert [sampler.choose(logits) for _ in range(3)] == [1, 2, 0]


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    logits = np.array([30.0, 29.0, -30.0], np.float32)
    assert Sampler(Sampling(temperature=1e-9, seed=0)).choose(logits) == 0


def test_masked_tokens_are_fine_but_no_number_at_all_is_not() -> None:
    masked = np.array([-np.inf, 1.0, -np.inf], np.float32)
    assert Sampler(Sampling(temperature=1, seed=0)).choose(masked) == 1
    for bad in ([1.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf]):
        with pytest.raises(BundleError, match="not a number"):
            Sampler(Sampling()).choose(np.array(bad, np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"repetition_penalty": 0.0},
        {"seed": -1},
    ],
)
def test_values_out_of_range_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Sampling(**settings)
