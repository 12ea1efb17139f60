"""Loops: how many of twenty greedy texts end in one, the same few words over and over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....runtime.text.greedy_loops import ends_in_loop
from ..scores import mean

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "lower"
measured_on = "greedy"


def per_reply(replies: Sequence[Sequence[int]], nats: Array | None) -> Array:
    """1 for each of ``replies``, token ids, that ends in a loop, else 0."""
    return np.array([ends_in_loop(ids) for ids in replies], np.float64)


def value(rows: NDArray[Any]) -> Array:
    """Mean over ``rows [..., replies, (looped,)]``."""
    return mean(rows)
