"""KL divergence from the original: how many nats a token the compressed model's distribution is off, on
average.

``KL(original ‖ compressed)`` (Kullback and Leibler, "On Information and Sufficiency", 1951) sees the whole
distribution, so it resolves damage that perplexity, which sees one token, averages away.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import quotient

Array = NDArray[np.float64]

unit = "nats/token"
better: Literal["lower", "higher"] = "lower"
measured_on = "tokens"


def per_token(log_probs: Array, reference: Array, targets: NDArray[Any]) -> Array:
    """``Σ p·(log p − log q)`` per position with p the original's distribution, ``[t]``; never negative."""
    if log_probs is reference:
        return np.zeros(len(reference))
    nats: Array = np.einsum("tv,tv->t", np.exp(reference), reference - log_probs)
    # Rounding can leave a sum of about −1e-16 where the two are equal.
    return nats.clip(min=0.0)


def value(rows: Array) -> Array:
    """Mean over all tokens of ``rows [..., windows, (nats, tokens, bytes)]``."""
    return quotient(rows)
