"""Repetition of greedy text: the fraction of its runs of four tokens that it has said before.

seq-rep-4 of Welleck et al., "Neural Text Generation With Unlikelihood Training", 2020, arXiv 1908.04319.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "lower"
measured_on = "greedy"
LENGTH = 4


def distinct(ids: Sequence[int], length: int) -> float:
    """The fraction of the runs of ``length`` tokens in ``ids`` that differ from all before; 1 without any."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def per_reply(replies: Sequence[Sequence[int]], nats: Array | None) -> Array:
    """Of each of ``replies``, token ids, the fraction that is repeated."""
    return np.array([1 - distinct(ids, LENGTH) for ids in replies], np.float64)


def value(rows: NDArray[Any]) -> Array:
    """Mean over ``rows [..., replies, (repeated,)]``."""
    return mean(rows)
