"""Top-1 agreement: the fraction of positions where the compressed model picks the original's token."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import quotient

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "higher"
measured_on = "tokens"


def per_token(log_probs: Array, reference: Array, targets: NDArray[Any]) -> Array:
    """1 where the most likely tokens are the same, else 0, ``[t]``; of equals the first counts."""
    same = log_probs.argmax(axis=1) == reference.argmax(axis=1)
    return np.asarray(same, dtype=np.float64)


def value(rows: Array) -> Array:
    """Mean over all tokens of ``rows [..., windows, (agreements, tokens, bytes)]``, between 0 and 1."""
    return quotient(rows)
