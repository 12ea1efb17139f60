"""``ClassifierModel``: the label of each text, with the probability of every label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...terminal import Progress
from ..bundle.bundle import Bundle
from .encoder import BATCH_SIZE, Encoder, Vectors


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text; ``probabilities`` are those of all labels in the model's order."""

    label: str
    probability: float
    probabilities: dict[str, float]


class ClassifierModel:
    """The bundle of a classifier of texts, loaded.

    Raises:
        InputError: the bundle is a decoder.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, provider: str = "cpu") -> None:
        self.bundle = bundle
        self.encoder = Encoder.open(bundle, threads, provider=provider)
        self.tokenizer, self.labels = self.encoder.tokenizer, self.encoder.labels

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
            InputError: the bundle is a sentence encoder, or a batch size below 1.
        """
        logits = self.logits(texts, batch_size=batch_size, progress=progress).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return [self._named(row) for row in (odds / odds.sum(axis=1, keepdims=True)).tolist()]

    def _named(self, row: list[float]) -> Classification:
        best = max(range(len(row)), key=row.__getitem__)
        return Classification(self.labels[best], row[best], dict(zip(self.labels, row, strict=True)))
