"""How fast this machine reads memory and multiplies, for the time of a plan: looked at for a fifth of a
second in a child process, as time of the processor, in which other work does not count.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import EdgepressError
from .bandwidth import SINGLE

_VALUES, _SIDE = 1 << 22, 256  # of each of two vectors, beyond most caches; of a matrix
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
    child = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        capture_output=True,
        text=True,
        env={**os.environ, **dict.fromkeys(SINGLE, "1")},
        check=False,
    )
    if child.returncode != 0:
        raise EdgepressError("the rates of this machine cannot be measured", why=child.stderr.strip()[-800:])
    reading, multiplying = json.loads(child.stdout)
    more = threads - 1
    return QuickRates((1 + more * _MEMORY) * reading, (1 + more * _PRODUCTS) * multiplying)


def of_one_thread() -> tuple[float, float]:
    """Bytes and multiply-adds of a second; runs in the child."""
    import numpy as np

    left, right = np.ones(_VALUES), np.ones(_VALUES)
    square = np.ones((_SIDE, _SIDE), np.float32)
    reading = (left.nbytes + right.nbytes) / _fastest(lambda: np.dot(left, right))
    return reading, _SIDE**3 / _fastest(lambda: square @ square)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds that the processor took for the fastest of some runs."""
    best, begun, count = float("inf"), time.perf_counter(), 0
    while count < _REPEATS or time.perf_counter() - begun < _SECONDS:
        start = time.process_time()
        run()
        best, count = min(best, time.process_time() - start), count + 1
    return best


if __name__ == "__main__":
    print(json.dumps(of_one_thread()))
