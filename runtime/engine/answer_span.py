"""The span of a text that answers a question: the likeliest pair of a first and a last token.

Devlin et al., BERT, 2018, arXiv 1810.04805, section 4.2. The probability is the product of that of the first
token and that of the last among the text's tokens, as transformers' pipeline has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .encoder_answers import Vectors

LONGEST = 30  # tokens of an answer


def answer_span(logits: Vectors, starts: Sequence[int], ends: Sequence[int]) -> tuple[int, int, float] | None:
    """The characters where the answer begins and ends, and its probability; None where no token is of the
    text.

    Args:
        logits: ``[tokens, 2]`` of the first and the last token of the answer.
        starts, ends: characters of the text where each token begins and ends, −1 outside of it.
    """
    inside = np.flatnonzero(np.asarray(starts) >= 0)
    if not len(inside):
        return None
    first, last = (_probabilities(logits[inside, part].astype(np.float64)) for part in range(2))
    pairs = np.triu(np.outer(first, last))
    pairs -= np.triu(pairs, LONGEST)
    begin, end = np.unravel_index(pairs.argmax(), pairs.shape)
    return starts[inside[begin]], ends[inside[end]], float(pairs[begin, end])


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    odds = np.exp(logits - logits.max())
    found: NDArray[np.float64] = odds / odds.sum()
    return found
