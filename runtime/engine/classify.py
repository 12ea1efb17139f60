"""``ClassifierModel``: the label of each text, with the probability of every label; of a model with a single
label, how well each text answers a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...terminal.progress import Progress
from .encoder import BATCH_SIZE, EncoderModel
from .encoder_answers import Vectors

HALF = 0.5


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text or image; ``probabilities`` are those of all labels in the model's order,
    and ``labels`` those that hold: that one, or where there may be several all of at least one half.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    labels: tuple[str, ...]


class ClassifierModel(EncoderModel):
    """The bundle of a classifier of texts, loaded."""

    def logits(
        self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> Vectors:
        """``[len(texts), labels]``; as :meth:`Encoder.logits`."""
        texts = [texts] if isinstance(texts, str) else texts
        return self.encoder.logits(texts, batch_size, progress=progress)

    def classify(
        self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> list[Classification]:
        """The label of each text, in the order of the texts.

        Raises:
            InputError: the bundle is a sentence encoder or a reranker, or a batch size below 1.
        """
        if len(self.labels) == 1:
            raise InputError(
                "this bundle is a reranker: it has one label, whose score is of a pair of texts",
                fix="use: edgepress rerank BUNDLE QUERY TEXT…",
            )
        logits = self.logits(texts, batch_size=batch_size, progress=progress)
        return classifications(logits, self.labels, several=self.encoder.section.several)

    def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> list[float]:
        """How well each of ``texts`` answers ``query``, between 0 and 1, in the order of the texts.

        Raises:
            InputError: the bundle is no reranker: it has several labels, or none.
        """
        if len(self.labels) > 1:
            raise InputError(
                f"this bundle is a classifier of {len(self.labels)} labels, and no reranker",
                fix="use: edgepress classify BUNDLE TEXT…",
            )
        pairs = [(query, text) for text in texts]
        logits = self.encoder.pair_logits(pairs, batch_size, progress=progress)[:, 0].astype(np.float64)
        return [float(score) for score in _holds(logits)]


def classifications(logits: Vectors, labels: Sequence[str], *, several: bool) -> list[Classification]:
    """What the ``logits [inputs, labels]`` of a classifier say, of which an input has one label or, with
    ``several``, any number.
    """
    exact = logits.astype(np.float64)
    if several:
        return [_named(row, labels, several=True) for row in _holds(exact).tolist()]
    odds = np.exp(exact - exact.max(axis=1, keepdims=True))
    return [_named(row, labels, several=False) for row in (odds / odds.sum(axis=1, keepdims=True)).tolist()]


def _named(row: list[float], labels: Sequence[str], *, several: bool) -> Classification:
    best = max(range(len(row)), key=row.__getitem__)
    found = dict(zip(labels, row, strict=True))
    holding: tuple[str, ...] = (labels[best],)
    if several:
        holding = tuple(label for label, probability in found.items() if probability >= HALF)
    return Classification(labels[best], row[best], found, holding)


def _holds(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of each, whatever the others are."""
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return probabilities
