"""Spearman's rank correlation between the similarity of two words' embeddings and people's ratings.

Spearman, "The Proof and Measurement of Association between Two Things", 1904. Ties get their mean rank.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .cosine import per_sentence as cosines

Array = NDArray[np.float64]

unit = ""
better: Literal["lower", "higher"] = "higher"
measured_on = "pairs"


def per_pair(left: NDArray[Any], right: NDArray[Any]) -> Array:
    """Cosine similarity of each pair of embeddings, ``[n]``."""
    return cosines(left, right)


def value(rows: Array) -> Array:
    """Correlation of the ranks of ``rows [..., pairs, (similarity, rating)]``; 0 if one side is constant."""
    sets = rows.reshape(-1, *rows.shape[-2:])
    return np.array([_of_ranks(ranks(one[:, 0]), ranks(one[:, 1])) for one in sets]).reshape(rows.shape[:-2])


def _of_ranks(left: Array, right: Array) -> float:
    left, right = left - left.mean(), right - right.mean()
    scale = np.sqrt((left @ left) * (right @ right))
    return float(left @ right / scale) if scale > 0 else 0.0


def ranks(values: Array) -> Array:
    """Ranks from 1, ties at the mean of the ranks they take up."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
