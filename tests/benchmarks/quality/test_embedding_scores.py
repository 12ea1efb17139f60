"""Embeddings of two encoders on the same sentences, passages, classes and pairs of words."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgepress.benchmarks.quality.embedding_scores import EncoderTexts, score_embeddings
from edgepress.benchmarks.quality.held_out_text import classes_of_texts, measured_passages
from edgepress.compress.text.corpus import Corpus
from edgepress.errors import GateFailed, InputError

PAIRS = {"toy": [("a", "b", 1.0), ("a", "c", 3.0), ("b", "c", 2.0), ("c", "d", 5.0)]}
SENTENCE = "The old bridge over the river was built of grey stone by people of the town long ago."


class Encoder:
    """A model whose embeddings depend on the text alone."""

    def __init__(self, seed: int, width: int = 6) -> None:
        self.seed, self.width = seed, width

    def embeddings(self, texts: Sequence[str]) -> np.ndarray:
        seeds = [[self.seed, *text.encode()] for text in texts]
        rows = [np.random.default_rng(seed).normal(size=self.width) for seed in seeds]
        return np.array(rows, np.float32)


class Broken(Encoder):
    def embeddings(self, texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), self.width), np.nan, np.float32)


def passages(count: int) -> list[str]:
    return [
        f"{SENTENCE} Number {number} of them. {SENTENCE} It stands at place {number}."
        for number in range(count)
    ]


def test_sentences_and_pairs_of_words() -> None:
    subject, original = Encoder(1), Encoder(2)
    sentences = ["one", "two", "three"]
    scores = score_embeddings(subject, original, EncoderTexts(sentences, word_pairs=PAIRS))  # type: ignore[arg-type]
    assert set(scores) == {"cosine", "spearman_toy"}
    mine, theirs = subject.embeddings(sentences), original.embeddings(sentences)
    cosines = (mine * theirs).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)
    assert scores["cosine"].of_subject().value == pytest.approx(cosines.mean())
    assert scores["cosine"].of_original().value == pytest.approx(1)
    left, right = subject.embeddings(["a", "a", "b", "c"]), subject.embeddings(["b", "c", "c", "d"])
    similar = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    np.testing.assert_allclose(scores["spearman_toy"].samples(), similar, rtol=1e-6)
    np.testing.assert_array_equal(scores["spearman_toy"].subject[:, 1], [1, 3, 2, 5])


def test_passages_and_classes_of_the_original_itself() -> None:
    original = Encoder(2)
    halves = measured_passages(passages(12), count=9, placement="spread")
    texts, classes = classes_of_texts(
        Corpus(tuple("\n\n".join(passages(8)) + str(n) for n in range(3)), "x"), count=99
    )
    scores = score_embeddings(original, original, EncoderTexts(["x"], halves, texts, classes))  # type: ignore[arg-type]
    found = {name: score.of_subject().value for name, score in scores.items()}
    assert found["neighbour_overlap"] == found["spearman_sentences"] == pytest.approx(1)
    assert scores["retrieval_at_1"].of_subject().n == 9
    assert scores["probe_accuracy"].of_subject().n == len(texts) // 2
    for score in scores.values():
        assert score.delta()["value"] == 0


def test_broken_or_unlike_embeddings_are_named() -> None:
    given = EncoderTexts(["x", "y"])
    with pytest.raises(GateFailed, match="the compressed model gives 2 of 2 embeddings"):
        score_embeddings(Broken(1), Encoder(2), given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="embeddings differ in size: 9 against 6"):
        score_embeddings(Encoder(1, width=9), Encoder(2), given)  # type: ignore[arg-type]


def test_a_passage_is_cut_between_sentences() -> None:
    text = f"{SENTENCE} {SENTENCE}"
    assert measured_passages([text, "too short", text], count=5, placement="first") == [(SENTENCE, SENTENCE)]
    words = " ".join(["word"] * 40)
    assert measured_passages([words], count=1, placement="first") == [(" ".join(["word"] * 20),) * 2]
    assert measured_passages(["short"], count=5, placement="spread") == []


def test_classes_are_labels_or_documents() -> None:
    labelled = Corpus(tuple(f"text {number}" for number in range(20)), "x", labels=("a", "b") * 10)
    texts, classes = classes_of_texts(labelled, count=16)
    assert (len(texts), classes.tolist()) == (16, [0] * 8 + [1] * 8)
    assert all(int(text.split()[1]) % 2 == place for text, place in zip(texts, classes, strict=True))
    few, none = classes_of_texts(Corpus(("one\n\ntwo",), "x"), count=16)
    assert (few, len(none)) == ([], 0)
