"""Read bandwidth of this machine's memory, measured on the spot: the roof over every memory-bound decode
rate.

Each thread takes dot products of the two halves of its own array, so that it reads two streams at full
vector width (one stream with a plain reduction reaches 60 to 80 % of that). The best of several repeats
counts: noise only ever lowers a rate, and the roof must not be too low. The work is done in a child
process, because a BLAS reads its thread count once, when it is loaded, and must not split a dot product
that is one stream of ours. It is bounded: a working set is read twenty times, or as often as four tenths of a
second allow and three times at least, and several working sets are parts of one that is touched once.

A working set smaller than the last-level cache measures the cache. That is the honest roof for a model
that fits in it. One that main memory must serve is eight such caches, but no more than 1 GiB: the hundreds of
megabytes that a virtual machine is shown are a server's, and most of them serve others.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import EdgepressError, InputError, OutOfResource
from ..runtime.session.threads import thread_budget
from .probe import read_memory

STREAMS = 2
METHOD = "dot product of two float64 streams per thread, best of the repeats"
SMALLEST = 1 << 20
# One repeat reads at least this much, to be long against the cost of starting it; some milliseconds, so that
# a busy machine lets some of the repeats pass without a break.
BYTES_PER_REPEAT = 1 << 26
REPEATS, LEAST_REPEATS, SECONDS = 20, 3, 0.4
# A child is waited for so much longer than it may read: where others use the processors, it starts late.
_START_S = 20.0
_LEAST_MEMORY, _MOST_MEMORY = 256 << 20, 1 << 30
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
    """A working set that main memory must serve: eight times the last-level cache, between 256 MiB and 1
    GiB.
    """
    return min(max(8 * (cache_bytes or 0), _LEAST_MEMORY), _MOST_MEMORY)


def measure_bandwidth(working_set: int, *, threads: int | None = None, repeats: int = REPEATS) -> Bandwidth:
    """Measure with ``working_set`` bytes in all (rounded down to whole vectors), split over ``threads``."""
    return measure_bandwidths([working_set], threads=threads, repeats=repeats)[0]


def measure_bandwidths(
    working_sets: Sequence[int],
    *,
    threads: int | None = None,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
    limit_s: float | None = None,
) -> list[Bandwidth]:
    """Of each working set in bytes, from the smallest: those that ``limit_s`` leaves no time for are missing.

    Args:
        seconds: after which no repeat of a working set is begun that need not be.
    """
    asked = sorted(set(working_sets))
    number = thread_budget() if threads is None else threads
    if not asked or asked[0] < SMALLEST or number < 1 or repeats < 1:
        raise InputError(
            f"cannot measure bandwidth over {asked} bytes with {number} threads and {repeats} repeats",
            why=f"it needs at least {SMALLEST} bytes, one thread and one repeat",
        )
    if asked[-1] > read_memory().available // 2:
        raise OutOfResource(
            f"a working set of {asked[-1] / 1e9:.1f} GB needs more than half of the free memory"
        )
    request = {"working_sets": asked, "threads": number, "repeats": repeats, "seconds": seconds}
    lines = _answers({**request, "limit_s": limit_s}, None if limit_s is None else limit_s + _START_S)
    found = [tuple(json.loads(line)) for line in lines]
    if not found:
        raise EdgepressError("the bandwidth measurement failed", why="it read nothing in time")
    return [Bandwidth(max(one), size, number, one) for size, one in zip(asked, found, strict=False)]


def _answers(request: dict[str, Any], timeout: float | None) -> list[str]:
    """The whole lines that the child says in so many seconds."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps(request).encode(),
            capture_output=True,
            env={**os.environ, **dict.fromkeys(SINGLE, "1")},
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode().split("\n")[:-1]
    if child.returncode != 0:
        why = child.stderr.decode(errors="replace").strip()[-800:]
        raise EdgepressError("the bandwidth measurement failed", why=why)
    return child.stdout.decode().splitlines()


class _Turns:
    """Lets threads read at the same moments: once untimed, then as often as is due."""

    def __init__(self, threads: int, repeats: int, seconds: float) -> None:
        self._repeats, self._seconds = repeats, seconds
        self._begun, self._count, self._goes_on = 0.0, 0, True
        self._gate = threading.Barrier(threads, action=self._decide, timeout=600)

    def _decide(self) -> None:
        """Whether all of them read once more."""
        timed, now = self._count, time.monotonic()
        self._begun = now if timed <= 1 else self._begun
        due = timed <= LEAST_REPEATS or now - self._begun < self._seconds
        self._goes_on = timed <= self._repeats and due
        self._count += 1

    def next(self) -> bool:
        """Wait for the others; False for all of them when it is enough."""
        self._gate.wait()
        return self._goes_on


class _Streams:
    """Two arrays for each thread, of which every working set is a part: they are touched once."""

    def __init__(self, room: int, threads: int) -> None:
        import numpy as np

        self._dot = np.dot
        self._arrays = [(np.empty(room), np.empty(room)) for _ in range(threads)]
        self._touched = 0

    def read(self, half: int, passes: int, turns: _Turns) -> list[list[tuple[float, float]]]:
        """Of each thread when it began and ended to read its first ``half`` numbers, at each turn."""
        threads = range(len(self._arrays))
        with ThreadPoolExecutor(len(threads)) as pool:
            found = list(pool.map(lambda index: self._turn(index, half, passes, turns), threads))
        self._touched = half
        return found

    def _turn(self, index: int, half: int, passes: int, turns: _Turns) -> list[tuple[float, float]]:
        left, right = (one[:half] for one in self._arrays[index])
        # First touched by a thread that reads it: on machines with several memories it lies near.
        left[self._touched :] = right[self._touched :] = 1.0
        found = []
        while turns.next():
            start = time.perf_counter()
            for _ in range(passes):
                self._dot(left, right)
            found.append((start, time.perf_counter()))
        return found


def rates(
    working_sets: Sequence[int],
    threads: int,
    repeats: int,
    seconds: float = SECONDS,
    limit_s: float | None = None,
) -> Iterator[list[float]]:
    """Bytes per second of each repeat, for each working set in order of size; runs in the child. After
    ``limit_s`` no further one is begun.
    """
    until = float("inf") if limit_s is None else time.monotonic() + limit_s
    halves = [size // threads // STREAMS // 8 for size in working_sets]
    streams = _Streams(halves[-1], threads)
    for size, half in zip(working_sets, halves, strict=True):
        if half != halves[0] and time.monotonic() > until:
            return
        passes = max(1, BYTES_PER_REPEAT // size)
        turns = zip(*streams.read(half, passes, _Turns(threads, repeats, seconds)), strict=True)
        timed = list(turns)[1:]
        moved = passes * threads * STREAMS * half * 8
        yield [moved / (max(end for _, end in one) - min(start for start, _ in one)) for one in timed]


if __name__ == "__main__":
    for found in rates(**json.loads(sys.stdin.read())):
        print(json.dumps(found), flush=True)
