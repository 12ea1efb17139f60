"""How far an encoder is from its original: its embeddings of the same texts, and what is done with
embeddings.

Search (halves of passages find each other), nearest neighbours, similarity of pairs of sentences, and a
linear probe come first: single words say little about sentences, and deleting blocks hardly changes them.
Rated pairs of words are measured as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...terminal.progress import Progress, Silent
from ..records.subjects import OpenModel
from .accuracy import require_finite
from .metrics import Rows, metrics_of
from .scores import Scores
from .token_damage import require_same_width

WordPairs = Sequence[tuple[str, str, float]]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderTexts:
    """What embeddings are made of.

    Attributes:
        passages: the two halves of each.
        texts, classes: of the linear probe; the even places teach it, the odd ones try it.
        word_pairs: by the name of their set, with people's ratings.
    """

    sentences: Sequence[str]
    passages: Sequence[tuple[str, str]] = ()
    texts: Sequence[str] = ()
    classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    word_pairs: Mapping[str, WordPairs] = field(default_factory=dict)


def score_embeddings(
    subject: OpenModel, original: OpenModel, given: EncoderTexts, *, progress: Progress | None = None
) -> dict[str, Scores]:
    """Every metric of sentences, passages, classes and pairs for which there are texts."""
    scores: dict[str, Scores] = {}
    with (progress or Silent()).task("validating", 3 + len(given.word_pairs)) as task:
        scores |= of_vectors(*_embeddings(subject, original, given.sentences))
        task.advance(1)
        if len(given.passages) > 1:
            scores |= _of_passages(subject, original, given.passages)
        task.advance(1)
        if len(given.texts):
            mine, theirs = _embeddings(subject, original, given.texts)
            for name, metric in metrics_of("classes").items():
                ours, own = (metric.each(vectors, given.classes)[:, None] for vectors in (mine, theirs))
                scores[name] = Scores(metric, ours, own)
        task.advance(1)
        for label, pairs in given.word_pairs.items():
            scores |= _of_words(subject, original, label, pairs)
            task.advance(1)
    return scores


def of_vectors(mine: Vectors, theirs: Vectors) -> dict[str, Scores]:
    """Every metric of vectors ``[n, size]`` of the same sentences or images."""
    return {
        name: Scores(metric, metric.each(mine, theirs)[:, None], metric.each(theirs, theirs)[:, None])
        for name, metric in metrics_of("sentences").items()
    }


def _of_passages(
    subject: OpenModel, original: OpenModel, passages: Sequence[tuple[str, str]]
) -> dict[str, Scores]:
    firsts, seconds = (
        _embeddings(subject, original, [passage[half] for passage in passages]) for half in (0, 1)
    )
    mine, theirs = (firsts[0], seconds[0]), (firsts[1], seconds[1])
    scores = {}
    for name, metric in metrics_of("passages").items():
        ours, own = metric.each(mine, theirs), metric.each(theirs, theirs)
        scores[name] = Scores(metric, ours[:, None], own[:, None])
    # Pairs that belong together, and as many that do not, rated by the original.
    for name, metric in metrics_of("pairs").items():
        ours, own = (
            np.concatenate([metric.each(*found), metric.each(found[0], np.roll(found[1], 1, axis=0))])
            for found in (mine, theirs)
        )
        scores[f"{name}_sentences"] = Scores(metric, _beside(ours, own), _beside(own, own))
    return scores


def _of_words(subject: OpenModel, original: OpenModel, label: str, pairs: WordPairs) -> dict[str, Scores]:
    words = sorted({word for left, right, _ in pairs for word in (left, right)})
    mine, theirs = _embeddings(subject, original, words)
    place = {word: index for index, word in enumerate(words)}
    left, right = [place[word] for word, _, _ in pairs], [place[word] for _, word, _ in pairs]
    ratings = np.array([rating for _, _, rating in pairs])
    scores = {}
    for name, metric in metrics_of("pairs").items():
        ours, own = (metric.each(v[left], v[right]) for v in (mine, theirs))
        scores[f"{name}_{label}"] = Scores(metric, _beside(ours, ratings), _beside(own, ratings))
    return scores


def _beside(numbers: NDArray[np.float64], ratings: NDArray[np.float64]) -> Rows:
    return np.stack([numbers, ratings], axis=1)


def _embeddings(subject: OpenModel, original: OpenModel, texts: Sequence[str]) -> tuple[Vectors, Vectors]:
    theirs = original.embeddings(texts)
    mine = theirs if subject is original else subject.embeddings(texts)
    require_same_width("embeddings", mine, theirs)
    require_finite("the original", theirs, "embeddings")
    require_finite("the compressed model", mine, "embeddings")
    return mine, theirs
