"""Numbers of rows, of one set or of many resampled ones at once: ``rows [..., n, k]`` to ``[...]``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(rows: NDArray[Any]) -> Array:
    """Mean of the first column."""
    return np.asarray(rows[..., 0].mean(axis=-1))


def quotient(rows: NDArray[Any], column: int = 1) -> Array:
    """Sum of the first column over that of another."""
    return np.asarray(rows[..., 0].sum(axis=-1) / rows[..., column].sum(axis=-1))
