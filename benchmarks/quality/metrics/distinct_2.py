"""Distinct-2 of greedy text: the fraction of its pairs of tokens that differ from all before.

Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", 2016, arXiv 1510.03055;
of each text alone, and the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean
from .repetition import distinct

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "higher"
measured_on = "greedy"


def per_reply(replies: Sequence[Sequence[int]], nats: Array | None) -> Array:
    """Of each of ``replies``, token ids, the fraction of pairs that are new."""
    return np.array([distinct(ids, 2) for ids in replies], np.float64)


def value(rows: NDArray[Any]) -> Array:
    """Mean over ``rows [..., replies, (distinct,)]``."""
    return mean(rows)
