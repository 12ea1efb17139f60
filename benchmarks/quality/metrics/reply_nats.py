"""How the original would have said the greedy replies: its negative log-likelihood of them, nats a token.

A model that has lost its text without a loop says what its original never would: this is large then. A loop
that has begun is likely to go on, and keeps it small.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean

Array = NDArray[np.float64]

unit = "nats/token"
better: Literal["lower", "higher"] = "lower"
measured_on = "greedy"


def per_reply(replies: Sequence[Sequence[int]], nats: Array | None) -> Array | None:
    """``nats`` ``[n]`` as they are given; None where the original reads other tokens."""
    return nats


def value(rows: NDArray[Any]) -> Array:
    """Mean over ``rows [..., replies, (nats a token,)]``."""
    return mean(rows)
