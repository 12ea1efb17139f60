"""Agreement of labels: the fraction of texts that the compressed classifier gives the original's label."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean
from .top1_agreement import per_token

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "higher"
measured_on = "labels"


def per_text(log_probs: Array, reference: Array, targets: NDArray[Any] | None) -> Array:
    """1 where the likeliest labels are the same, else 0, ``[n]``; of equals the first counts."""
    return per_token(log_probs, reference, np.zeros(0))


def value(rows: Array) -> Array:
    """Mean over ``rows [..., texts, (agreement,)]``, between 0 and 1."""
    return mean(rows)
