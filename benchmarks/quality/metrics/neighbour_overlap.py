"""Overlap of nearest neighbours: how many of the ten passages that are nearest to a passage for the
original are so for the compressed model too. What an index of embeddings returns changes by the rest.
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
NEIGHBOURS = 10


def per_passage(mine: tuple[NDArray[Any], NDArray[Any]], theirs: tuple[NDArray[Any], NDArray[Any]]) -> Array:
    """The fraction of shared neighbours of each second half among the others."""
    pairs = zip(_nearest(mine[1]), _nearest(theirs[1]), strict=True)
    return np.array([len(np.intersect1d(ours, own)) / len(own) for ours, own in pairs])


def _nearest(embeddings: NDArray[Any]) -> NDArray[np.int64]:
    """``[n, 10]`` places of the nearest others of each row, or of all others when there are fewer."""
    rows = unit_rows(embeddings)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    count = min(NEIGHBOURS, len(rows) - 1)
    return np.argsort(-similar, axis=1, kind="stable")[:, :count]


def value(rows: Array) -> Array:
    """Mean over ``rows [..., passages, (overlap,)]``."""
    return mean(rows)
