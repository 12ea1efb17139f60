"""Recall at 1 of passage retrieval: how often the second half of a passage is the nearest to its first
half, among the second halves of all passages. Each model searches among its own embeddings, as an index of
it would.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean
from .cosine import unit_rows

Array = NDArray[np.float64]

unit = ""
better: Literal["lower", "higher"] = "higher"
measured_on = "passages"


def rank_of_target(queries: NDArray[Any], targets: NDArray[Any]) -> Array:
    """From 1, the place of target ``i`` for query ``i`` by cosine; equally near ones come before it.

    Args:
        queries, targets: embeddings ``[n, hidden]``.
    """
    similar = unit_rows(queries) @ unit_rows(targets).T
    ranks: Array = (similar >= np.diagonal(similar)[:, None]).sum(axis=1).astype(np.float64)
    return ranks


def per_passage(mine: tuple[NDArray[Any], NDArray[Any]], theirs: tuple[NDArray[Any], NDArray[Any]]) -> Array:
    """1 for each query whose target is the nearest; the original's embeddings are not looked at."""
    found: Array = (rank_of_target(*mine) == 1).astype(np.float64)
    return found


def value(rows: Array) -> Array:
    """Mean over ``rows [..., passages, (found,)]``."""
    return mean(rows)
