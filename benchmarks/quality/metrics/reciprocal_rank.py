"""Mean reciprocal rank of passage retrieval: one over the place at which the second half of a passage is
found when its first half is searched for (Voorhees, "The TREC-8 Question Answering Track Report", 1999).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import mean
from .retrieval_at_1 import rank_of_target

Array = NDArray[np.float64]

unit = ""
better: Literal["lower", "higher"] = "higher"
measured_on = "passages"


def per_passage(mine: tuple[NDArray[Any], NDArray[Any]], theirs: tuple[NDArray[Any], NDArray[Any]]) -> Array:
    """The reciprocal rank of each query's target; the original's embeddings are not looked at."""
    return 1.0 / rank_of_target(*mine)


def value(rows: Array) -> Array:
    """Mean over ``rows [..., passages, (reciprocal rank,)]``."""
    return mean(rows)
