"""How far two float32 answers of one model may lie apart that differ in the order of their sums alone."""

from typing import Any

import numpy as np

# A processor's library adds a product's terms in an order of its own, which moves each result by some units
# in the last place of the largest term; a pico model has about sixteen products one behind another, whose
# moves add up at worst. Sixteen units each bear every order that was seen (SSE 4.2, AVX2, AVX-512).
ROUNDINGS = 16 * 16


def noise(wanted: Any) -> float:
    """The largest difference from ``wanted`` that the order of sums explains."""
    return float(ROUNDINGS * np.finfo(np.float32).eps * np.abs(np.asarray(wanted, np.float64)).max())


def same_sums(found: Any, wanted: Any) -> bool:
    """Whether ``found`` is ``wanted`` but for the order of sums."""
    if found.shape != wanted.shape:
        return False
    return bool(np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64)).max() <= noise(wanted))
