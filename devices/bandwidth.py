"""Read bandwidth of this machine's memory, measured on the spot: the roof over every memory-bound decode
rate.

Each thread takes dot products of the two halves of its own array, so that it reads two streams at full
vector width (one stream with a plain reduction reaches 60 to 80 % of that). The best of several repeats
counts: noise only ever lowers a rate, and the roof must not be too low. The work is done in a child
process, because a BLAS reads its thread count once, when it is loaded, and must not split a dot product
that is one stream of ours.

A working set smaller than the last-level cache measures the cache. That is the honest roof for a model
that fits in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import EdgepressError, InputError, OutOfResource
from ..runtime.session.threads import thread_budget
from .probe import read_memory

STREAMS = 2
METHOD = "dot product of two float64 streams per thread, best of the repeats"
SMALLEST = 1 << 20
# One repeat reads at least this much, to be long against the cost of starting it.
BYTES_PER_REPEAT = 1 << 29
# What keeps a BLAS to one thread: variables that it reads once, when it is loaded.
SINGLE = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Bandwidth:
    """A measured rate in bytes per second over ``working_set`` bytes with ``threads`` threads."""

    bytes_per_second: float
    working_set: int
    threads: int
    samples: tuple[float, ...]
    streams_per_thread: int = STREAMS
    method: str = METHOD

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the rate in GB/s as well."""
        return {**asdict(self), "samples": list(self.samples), "gb_per_second": self.bytes_per_second / 1e9}


def beyond_cache(cache_bytes: int | None) -> int:
    """A working set that main memory must serve: eight times the last-level cache, between 256 MiB and 2
    GiB.
    """
    return min(max(8 * (cache_bytes or 0), 256 << 20), 2 << 30)


def measure_bandwidth(working_set: int, *, threads: int | None = None, repeats: int = 7) -> Bandwidth:
    """Measure with ``working_set`` bytes in all (rounded down to whole vectors), split over ``threads``.

    Raises:
        InputError: a working set under 1 MiB, or fewer than one thread or repeat.
        OutOfResource: the working set is more than half of the memory that is free.
        EdgepressError: the child process failed.
    """
    count = thread_budget() if threads is None else threads
    if working_set < SMALLEST or count < 1 or repeats < 1:
        raise InputError(
            f"cannot measure bandwidth over {working_set} bytes with {count} threads and {repeats} repeats",
            why=f"it needs at least {SMALLEST} bytes, one thread and one repeat",
        )
    available = read_memory().available
    if working_set > available // 2:
        raise OutOfResource(
            f"a working set of {working_set / 1e9:.1f} GB needs more than half of the free memory"
        )
    request = {"working_set": working_set, "threads": count, "repeats": repeats}
    child = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **dict.fromkeys(SINGLE, "1")},
        check=False,
    )
    if child.returncode != 0:
        raise EdgepressError("the bandwidth measurement failed", why=child.stderr.strip()[-800:])
    samples = tuple(json.loads(child.stdout))
    return Bandwidth(max(samples), working_set, count, samples)


def rates(working_set: int, threads: int, repeats: int) -> list[float]:
    """Bytes per second of each repeat; runs in the child."""
    import numpy as np

    half = working_set // threads // STREAMS // 8
    passes = max(1, BYTES_PER_REPEAT // working_set)
    gate = threading.Barrier(threads, timeout=60)
    spans = np.zeros((repeats + 1, threads, 2))

    def stream(index: int) -> None:
        # First touched by the thread that reads it: on machines with several memories it lies near.
        left, right = np.ones(half), np.ones(half)
        for repeat in range(repeats + 1):
            gate.wait()
            start = time.perf_counter()
            for _ in range(passes):
                np.dot(left, right)
            spans[repeat, index] = start, time.perf_counter()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(stream, range(threads)))
    seconds = spans[1:, :, 1].max(axis=1) - spans[1:, :, 0].min(axis=1)
    moved = passes * threads * STREAMS * half * 8
    return [float(moved / value) for value in seconds]


if __name__ == "__main__":
    print(json.dumps(rates(**json.loads(sys.stdin.read()))))
