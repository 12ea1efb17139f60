"""Perplexity: the exponential of the mean negative log-likelihood of the tokens that came.

Jelinek, Mercer, Bahl, Baker, "Perplexity—a measure of the difficulty of speech recognition tasks", 1977.
Comparable only between models with one tokenizer; :mod:`.bits_per_byte` goes across.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import quotient

Array = NDArray[np.float64]

unit = ""
better: Literal["lower", "higher"] = "lower"
measured_on = "tokens"


def per_token(log_probs: Array, reference: Array, targets: NDArray[Any]) -> Array:
    """Negative log-likelihood of each target in nats, ``[t]``."""
    picked: Array = log_probs[np.arange(len(targets)), targets]
    return -picked


def value(rows: Array) -> Array:
    """Perplexity over all tokens of ``rows [..., windows, (nats, tokens, bytes)]``."""
    found: Array = np.exp(quotient(rows))
    return found
