"""KL divergence of a classifier's labels from the original's: how many nats a text they are off."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean
from .kl import per_token

Array = NDArray[np.float64]

unit = "nats/text"
better: Literal["lower", "higher"] = "lower"
measured_on = "labels"


def per_text(log_probs: Array, reference: Array, targets: NDArray[Any] | None) -> Array:
    """``Σ p·(log p − log q)`` over the labels, ``[n]``; never negative."""
    return per_token(log_probs, reference, np.zeros(0))


def value(rows: Array) -> Array:
    """Mean over ``rows [..., texts, (nats,)]``."""
    return mean(rows)
