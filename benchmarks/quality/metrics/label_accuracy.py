"""Accuracy: the fraction of texts to which a classifier gives the label that the text is known to have."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "higher"
measured_on = "labels"


def per_text(log_probs: Array, reference: Array, targets: NDArray[Any] | None) -> Array | None:
    """1 where the likeliest label is the known one of ``targets [n]``, else 0, ``[n]``; None where none is
    known.
    """
    return None if targets is None else np.asarray(log_probs.argmax(axis=1) == targets, dtype=np.float64)


def value(rows: Array) -> Array:
    """Mean over ``rows [..., texts, (right,)]``, between 0 and 1."""
    return mean(rows)
