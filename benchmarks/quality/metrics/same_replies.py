"""Same replies: the fraction of inputs to which the compressed model replies greedily what the original does.

One token that changes can change all that follow, so that this falls sooner than top-1 agreement does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean

Array = NDArray[np.float64]

unit = "share"
better: Literal["lower", "higher"] = "higher"
measured_on = "answers"


def per_answer(answers: Sequence[str], originals: Sequence[str]) -> Array:
    """1 for each of ``answers`` that is the text of the original's, else 0."""
    return np.array([one == other for one, other in zip(answers, originals, strict=True)], np.float64)


def value(rows: NDArray[Any]) -> Array:
    """Mean over ``rows [..., replies, (same,)]``."""
    return mean(rows)
