"""Accuracy of a linear probe: a classifier of embeddings by ridge regression onto the classes, fitted on
one half of the texts and tried on the other (Alain and Bengio, "Understanding intermediate layers using
linear classifier probes", arXiv:1610.01644, 2016). It says what a user who trains on the embeddings would
keep.
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
measured_on = "classes"
# Of embeddings of length 1: small beside what some dozen texts of a class add up to.
RIDGE = 0.1


def per_text(embeddings: NDArray[Any], classes: NDArray[np.int64]) -> Array:
    """1 for each text with an odd place that is put into its class by what the even ones taught.

    Args:
        embeddings: ``[n, hidden]``.
        classes: ``[n]``, from 0.
    """
    rows = np.concatenate([unit_rows(embeddings), np.ones((len(embeddings), 1))], axis=1)
    learned, tried = rows[::2], rows[1::2]
    targets = np.eye(int(classes.max()) + 1)[classes[::2]]
    gram = learned.T @ learned + RIDGE * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, learned.T @ targets)
    right: Array = ((tried @ weights).argmax(axis=1) == classes[1::2]).astype(np.float64)
    return right


def value(rows: Array) -> Array:
    """Mean over ``rows [..., texts, (right,)]``."""
    return mean(rows)
