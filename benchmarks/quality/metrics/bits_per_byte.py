"""Bits per byte: negative log-likelihood in bits a UTF-8 byte of text; compares across tokenizers."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..scores import quotient
from .perplexity import per_token as negative_log_likelihood

Array = NDArray[np.float64]

unit = "bits/byte"
better: Literal["lower", "higher"] = "lower"
measured_on = "tokens"


def per_token(log_probs: Array, reference: Array, targets: NDArray[Any]) -> Array:
    """Negative log-likelihood of each target in bits, ``[t]``."""
    return negative_log_likelihood(log_probs, reference, targets) / math.log(2)


def value(rows: Array) -> Array:
    """Bits over bytes of ``rows [..., windows, (bits, tokens, bytes)]``."""
    return quotient(rows, 2)
