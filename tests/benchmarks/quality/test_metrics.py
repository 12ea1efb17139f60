"""Every metric against a reference in plain Python, and the laws it must obey."""

import math

import numpy as np
import pytest
from edgepress.benchmarks.quality.metrics import METRICS, rank_of_target
from edgepress.benchmarks.quality.scores import log_softmax
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytestmark = pytest.mark.chain


SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 9))
LOGITS = arrays(np.float32, SHAPES, elements=st.floats(-80, 80, width=32))
perplexity, bits_per_byte, kl = METRICS["perplexity"], METRICS["bits_per_byte"], METRICS["kl"]
top1_agreement, cosine, spearman = METRICS["top1_agreement"], METRICS["cosine"], METRICS["spearman"]
retrieval, reciprocal_rank = METRICS["retrieval_at_1"], METRICS["reciprocal_rank"]


def random_logits(seed: int, tokens: int = 7, vocab: int = 11) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=4, size=(tokens, vocab)).astype(np.float32)


def naive_softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("name", METRICS)
def test_many_sets_of_rows_have_each_the_number_that_it_has_alone(name: str) -> None:
    metric = METRICS[name]
    sets = np.random.default_rng(3).lognormal(size=(5, 40, 3))
    alone = [float(metric.value(rows)) for rows in sets]
    np.testing.assert_array_equal(metric.value(sets), alone)
    assert len(set(alone)) == 5


def test_log_softmax_matches_the_naive_one() -> None:
    logits = random_logits(0)
    expected = [[math.log(p) for p in naive_softmax(row)] for row in logits.astype(float).tolist()]
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-12)


@given(LOGITS, st.floats(-1e4, 1e4))
def test_log_softmax_is_normalised_and_shift_invariant(logits: np.ndarray, shift: float) -> None:
    found = log_softmax(logits)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(log_softmax(logits.astype(np.float64) + shift), found, atol=1e-9)


def test_log_softmax_survives_huge_logits() -> None:
    found = log_softmax(np.array([[1e30, 0.0], [-1e30, -1e30]], np.float32))
    np.testing.assert_allclose(found, [[0, -1e30], [-math.log(2)] * 2], rtol=1e-6)


def test_perplexity_and_bits_per_byte_match_the_naive_ones() -> None:
    logits, targets = random_logits(1), np.array([3, 0, 10, 4, 4, 7, 1])
    probabilities = map(naive_softmax, logits.astype(float).tolist())
    likelihoods = [row[target] for row, target in zip(probabilities, targets, strict=True)]
    log_probs = log_softmax(logits)
    rows = np.array([[perplexity.each(log_probs, log_probs, targets).sum(), 7, 29]])
    assert perplexity.value(rows) == pytest.approx(math.prod(likelihoods) ** (-1 / 7))
    rows[0, 0] = bits_per_byte.each(log_probs, log_probs, targets).sum()
    assert bits_per_byte.value(rows) == pytest.approx(-sum(map(math.log2, likelihoods)) / 29)


def test_uniform_model_has_perplexity_of_its_vocabulary() -> None:
    log_probs = log_softmax(np.zeros((5, 13)))
    nats = perplexity.each(log_probs, log_probs, np.arange(5)).sum()
    assert perplexity.value(np.array([[nats, 5, 1]])) == pytest.approx(13)


def test_kl_matches_the_naive_one() -> None:
    original, compressed = random_logits(2), random_logits(3)
    expected = [
        sum(p * math.log(p / q) for p, q in zip(naive_softmax(left), naive_softmax(right), strict=True))
        for left, right in zip(
            original.astype(float).tolist(), compressed.astype(float).tolist(), strict=True
        )
    ]
    found = kl.each(log_softmax(compressed), log_softmax(original), np.zeros(7, int))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(LOGITS, st.integers(0, 1000))
def test_kl_is_never_negative_and_zero_for_equal_models(logits: np.ndarray, seed: int) -> None:
    original = log_softmax(logits)
    noise = np.random.default_rng(seed).normal(size=logits.shape)
    targets = np.zeros(len(logits), int)
    assert (kl.each(log_softmax(logits + noise), original, targets) >= 0).all()
    np.testing.assert_array_equal(kl.each(original.copy(), original, targets), 0)
    np.testing.assert_array_equal(kl.each(original, original, targets), 0)


@given(LOGITS, st.integers(0, 1000))
def test_token_metrics_do_not_depend_on_the_order_of_the_vocabulary(logits: np.ndarray, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tokens, vocab = logits.shape
    original = log_softmax(logits + generator.normal(size=logits.shape))
    compressed = log_softmax(logits + generator.normal(size=logits.shape))
    targets = generator.integers(0, vocab, size=tokens)
    order = generator.permutation(vocab)
    moved = np.argsort(order)[targets]
    for metric in (perplexity, bits_per_byte, kl, top1_agreement):
        straight = metric.each(compressed, original, targets)
        shuffled = metric.each(compressed[:, order], original[:, order], moved)
        np.testing.assert_allclose(straight, shuffled, atol=1e-9)


def test_top1_agreement_counts_equal_choices() -> None:
    original = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1]]))
    compressed = np.log(np.array([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]]))
    agreements = top1_agreement.each(compressed, original, np.zeros(3, int))
    np.testing.assert_array_equal(agreements, [1, 0, 1])
    assert top1_agreement.value(np.array([[2, 3, 9], [1, 1, 4]])) == pytest.approx(3 / 4)


def test_cosine_matches_the_naive_one() -> None:
    left, right = random_logits(4), random_logits(5)
    expected = [
        sum(a * b for a, b in zip(x, y, strict=True)) / math.hypot(*x) / math.hypot(*y)
        for x, y in zip(left.astype(float).tolist(), right.astype(float).tolist(), strict=True)
    ]
    found = cosine.each(left, right)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert cosine.value(found[:, None]) == pytest.approx(sum(expected) / 7)


def test_cosine_of_a_vector_with_itself_and_with_nothing() -> None:
    vectors = random_logits(6)
    np.testing.assert_allclose(cosine.each(vectors, 3 * vectors), 1)
    np.testing.assert_array_equal(cosine.each(vectors, np.zeros_like(vectors)), 0)


def naive_spearman(left: list[float], right: list[float]) -> float:
    def rank(values: list[float]) -> list[float]:
        below = [sum(other < value for other in values) for value in values]
        equal = [sum(other == value for other in values) for value in values]
        return [low + (same + 1) / 2 for low, same in zip(below, equal, strict=True)]

    a, b = rank(left), rank(right)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    cov = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return cov / spread if spread else 0.0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=2, max_size=15))
def test_spearman_matches_the_naive_one_with_ties(pairs: list[tuple[int, int]]) -> None:
    rows = np.array(pairs, np.float64)
    expected = naive_spearman(rows[:, 0].tolist(), rows[:, 1].tolist())
    assert spearman.value(rows) == pytest.approx(expected, abs=1e-12)


def test_spearman_sees_ranks_only() -> None:
    similarity = np.random.default_rng(7).normal(size=30)
    assert spearman.value(np.stack([similarity, np.exp(similarity)], axis=1)) == pytest.approx(1)
    assert spearman.value(np.stack([similarity, -(similarity**3)], axis=1)) == pytest.approx(-1)
    assert spearman.value(np.stack([similarity, np.ones(30)], axis=1)) == 0


def test_pairs_are_compared_by_cosine() -> None:
    left, right = random_logits(8), random_logits(9)
    np.testing.assert_array_equal(spearman.each(left, right), cosine.each(left, right))


def test_metrics_of_labels_match_the_naive_ones() -> None:
    mine, theirs = random_logits(5, 9, 3), random_logits(6, 9, 3)
    targets = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    ours, own = ([naive_softmax(row) for row in logits.astype(float).tolist()] for logits in (mine, theirs))
    nats = [
        sum(p * math.log(p / q) for p, q in zip(right, left, strict=True))
        for left, right in zip(ours, own, strict=True)
    ]
    log_probs, reference = log_softmax(mine), log_softmax(theirs)
    found = METRICS["label_kl"].each(log_probs, reference, None)
    np.testing.assert_allclose(found, nats, atol=1e-12)
    assert METRICS["label_kl"].value(found[:, None]) == pytest.approx(sum(nats) / 9)
    picks = [(row.index(max(row)), other.index(max(other))) for row, other in zip(ours, own, strict=True)]
    same = METRICS["label_agreement"].each(log_probs, reference, None)
    assert METRICS["label_agreement"].value(same[:, None]) == pytest.approx(sum(a == b for a, b in picks) / 9)
    right = METRICS["label_accuracy"].each(log_probs, reference, targets)
    assert right is not None
    hits = sum(a == target for (a, _), target in zip(picks, targets.tolist(), strict=True))
    assert METRICS["label_accuracy"].value(right[:, None]) == pytest.approx(hits / 9)
    assert METRICS["label_accuracy"].each(log_probs, reference, None) is None


def naive_cosine(left: list[float], right: list[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def test_retrieval_matches_the_naive_one() -> None:
    queries, targets = random_logits(10, 12, 4), random_logits(10, 12, 4) + random_logits(11, 12, 4) / 2
    ranks = []
    for place, query in enumerate(queries.astype(float).tolist()):
        similar = [naive_cosine(query, other) for other in targets.astype(float).tolist()]
        ranks.append(1 + sum(other > similar[place] for other in similar))
    np.testing.assert_array_equal(rank_of_target(queries, targets), ranks)
    pair, other = (queries, targets), (targets, queries)
    first = retrieval.each(pair, other)
    assert retrieval.value(first[:, None]) == pytest.approx(sum(rank == 1 for rank in ranks) / 12)
    found = reciprocal_rank.each(pair, other)
    assert reciprocal_rank.value(found[:, None]) == pytest.approx(sum(1 / rank for rank in ranks) / 12)


def test_a_target_that_others_equal_is_not_found_first() -> None:
    same = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(rank_of_target(same, same), 3)


def test_neighbours_match_the_naive_ones() -> None:
    mine, theirs = random_logits(12, 15, 3), random_logits(13, 15, 3)

    def nearest(rows: np.ndarray, place: int) -> set[int]:
        listed = rows.astype(float).tolist()
        others = [other for other in range(len(listed)) if other != place]
        return set(sorted(others, key=lambda other: -naive_cosine(listed[place], listed[other]))[:10])

    expected = [len(nearest(mine, place) & nearest(theirs, place)) / 10 for place in range(15)]
    found = METRICS["neighbour_overlap"].each((theirs, mine), (mine, theirs))
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(METRICS["neighbour_overlap"].each((mine, theirs), (mine, theirs)), 1)


def test_a_probe_learns_classes_that_lie_apart_and_no_others() -> None:
    classes = np.repeat(np.arange(4), 20)
    apart = np.eye(4)[classes] + random_logits(14, 80, 4) / 100
    np.testing.assert_array_equal(METRICS["probe_accuracy"].each(apart, classes), 1)
    alike = METRICS["probe_accuracy"].each(random_logits(15, 80, 4), classes)
    assert 0 <= METRICS["probe_accuracy"].value(alike[:, None]) < 0.6


def test_a_loop_is_what_is_said_three_times_and_takes_twelve_tokens() -> None:
    lead = [9, 8, 7, 6, 5]
    looped = [[*lead, *[1, 2, 3, 4] * 3], [3] * 12, list(range(21)) * 3]
    plain = [[3] * 11, [*lead, *[1, 2, 3, 4] * 2], [*[1, 2, 3, 4] * 3, 5], [], [1], list(range(64))]
    assert METRICS["loops"].each(looped, None).tolist() == [1, 1, 1]
    assert METRICS["loops"].each(plain, None).tolist() == [0] * len(plain)
    assert METRICS["loops"].value(np.array([[1.0], [0.0], [0.0], [1.0]])) == 0.5


def test_what_replies_repeat_is_counted_in_runs_of_tokens() -> None:
    # Of the five runs of four in the first, 1 2 3 4 comes twice; nothing repeats in the second.
    replies = [[1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4], [7, 7, 7], []]
    assert METRICS["repetition"].each(replies, None) == pytest.approx([1 / 5, 0, 0, 0])
    assert METRICS["distinct_2"].each(replies, None) == pytest.approx([4 / 7, 1, 1 / 2, 1])
