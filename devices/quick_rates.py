"""How fast this machine reads memory and multiplies, for the time of a plan: looked at for a fifth of a
second, as time of the processors, in which other work does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_VALUES, _SIDE = 1 << 22, 512  # of each of two vectors, beyond most caches; of a matrix
_REPEATS, _SECONDS = 3, 0.1
# Of a thread's rate that each further thread adds.
_MEMORY, _PRODUCTS = 0.6, 0.8


@dataclass(frozen=True)
class QuickRates:
    """Of one second: bytes that are read from memory, and multiply-adds of float32."""

    bytes: float
    multiply_adds: float


def quick_rates(threads: int) -> QuickRates:
    """The rates of so many ``threads``."""
    import numpy as np

    left, right = np.ones(_VALUES), np.ones(_VALUES)
    square = np.ones((_SIDE, _SIDE), np.float32)
    reading = _fastest(lambda: np.dot(left, right))
    product = _fastest(lambda: square @ square)
    return QuickRates(
        (1 + (threads - 1) * _MEMORY) * (left.nbytes + right.nbytes) / reading,
        (1 + (threads - 1) * _PRODUCTS) * _SIDE**3 / product,
    )


def _fastest(run: Callable[[], object]) -> float:
    """Seconds that the processors took for the fastest of some runs."""
    best, begun, count = float("inf"), time.perf_counter(), 0
    while count < _REPEATS or time.perf_counter() - begun < _SECONDS:
        start = time.process_time()
        run()
        best, count = min(best, time.process_time() - start), count + 1
    return best
