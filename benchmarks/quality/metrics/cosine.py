"""Cosine between the compressed model's embedding of a sentence and the original's."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean

Array = NDArray[np.float64]

unit = ""
better: Literal["lower", "higher"] = "higher"
measured_on = "sentences"


def unit_rows(embeddings: NDArray[Any]) -> Array:
    """``embeddings [n, hidden]`` with rows of length 1; a row of zeros stays one."""
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Array = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return units


def per_sentence(embeddings: NDArray[Any], reference: NDArray[Any]) -> Array:
    """Cosine of each row of ``embeddings [n, hidden]`` with that of ``reference``; 0 where one is zero."""
    left, right = np.asarray(embeddings, np.float64), np.asarray(reference, np.float64)
    product = np.einsum("nh,nh->n", left, right)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: Array = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return cosines.clip(-1.0, 1.0)


def value(rows: Array) -> Array:
    """Mean over ``rows [..., sentences, (cosine,)]``."""
    return mean(rows)
