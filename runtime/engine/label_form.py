"""``LabelForm``: how a classifier's logits are read, as rows of which one entry each holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .encoder_answers import Vectors


@dataclass(frozen=True)
class LabelForm:
    """What is ``labelled``: texts, tokens, or the span that is an answer; with ``several``, each label of a
    text holds or not, whatever the others do.
    """

    labelled: Literal["text", "token", "span", "image"] = "text"
    several: bool = False

    @property
    def by_token(self) -> bool:
        """Whether each token has logits, and not the text or image."""
        return self.labelled in ("token", "span")

    def rows(self, logits: Vectors) -> Vectors:
        """The logits of one text, ``[labels]`` or ``[tokens, labels]``, as ``[rows, choices]``: a row for the
        text, for each label, for each token; of a span one for its first token and one for its last.
        """
        if self.labelled == "span":
            return logits.T
        if self.several:
            return with_opposite(logits.reshape(-1, 1))
        return with_opposite(np.atleast_2d(logits))


def with_opposite(logits: Vectors) -> Vectors:
    """``logits [rows, labels]`` whose softmax are probabilities: beside a single label stands 0, that it does
    not hold.
    """
    if logits.shape[-1] > 1:
        return logits
    return np.concatenate([logits, np.zeros_like(logits)], axis=-1)
