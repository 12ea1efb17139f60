"""What a measurement of this machine's kernels will do: the key of its table, the cases that are still to be
timed, and about how long they take.

``Pace``: how far a measurement with a deadline is, in seconds: the time left that is shown is never more
than its deadline leaves.

The stock of weights that kernels are timed with: a file that memory must serve, and the working sets that
are taken from it.

How large that is, is measured, since what a machine says of its caches need not be what a process gets of
them: the 480 MiB of a server are shared by all of its virtual machines. The rate of reading is looked at over
working sets of up to twelve last-level caches or 1 GiB; the stock is twice the smallest from which on no rate
is more than a tenth above that of the largest, with any number of threads.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...files.disk import disk_full_is_typed
from ...runtime.kernels.library import instructions
from ...runtime.session.session import onnxruntime
from ...runtime.session.threads import thread_budget
from ...terminal.progress import ProgressTask
from ..probe import read_memory
from ..processor import read_processor
from .cases import cases, done_of
from .chain import LAST_BYTE, LEAST_BYTE
from .table import HERE, KernelTable, Key, Reading, read_table, tables_of
from .timing import STOCK

LIMIT_S = 60.0
# Of a case, about: opening a session and its passes.
CASE_S = 0.02
# Beside them: bandwidth, streams and the stock; where a measurement goes on only the stock is made again.
_BEFORE_S, _AGAIN_S = 12.0, 4.0
_OWN = "edgepress"
# Cases that the first guess weighs as much as: the first that are timed are of one kind.
_GUESSED = 100
# Weights that come from memory would fill so many last-level caches. With four, each of two cores that have
# such a cache of its own still finds a third of its half there.
_CACHES, _LEAST_STOCK, _MOST_STOCK = 12, 64 << 20, 1 << 30
# Working sets below the share of a server's cache that a process gets of it, which no number says.
_SMALL = tuple(size << 20 for size in (8, 32, 48, 64, 80, 96))
# Where a third of the bytes came from a cache twice as fast, the rate would be a fifth higher.
_ALIKE = 1.1
_PART = 1 << 20


@dataclass(frozen=True)
class MeasurePlan:
    """Of one call; ``stock`` are the bytes of weights that it times with, at the most."""

    key: Key
    path: Path
    threads: list[int]
    cases: int
    done: int
    seconds: float
    stock: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "key": self.key.model_dump(),
            "table": str(self.path),
            "threads": self.threads,
            "cases": self.cases,
            "done": self.done,
            "seconds": self.seconds,
            "memory": 2 * self.stock,
            "disk": self.stock,
        }


def this_key() -> Key:
    """What a table of this machine holds for."""
    processor = read_processor()
    return Key(
        processor=_plain(processor.model),
        flags=list(processor.isa),
        runtime=str(onnxruntime().__version__),
        provider="cpu",
        kernels=instructions(),
    )


def _plain(text: str) -> str:
    return "".join(one for one in text if " " <= one <= "~")[:200]


def thread_counts() -> list[int]:
    """1, 2 and all."""
    return sorted({1, *(n for n in (2, thread_budget()) if n <= thread_budget())})


def wanted(key: Key) -> list[int]:
    """The cases that can be run here."""
    known = cases()
    own = key.kernels != "none"
    return [index for index, case in enumerate(known) if own or case.kind.domain != _OWN]


def stopped(path: Path) -> KernelTable | None:
    """The table of a measurement that was stopped; None where the last one was complete."""
    table = read_table(path) if path.exists() else None
    return None if table is None or table.complete else table


def plan(folder: Path | None = None, limit_s: float = LIMIT_S) -> MeasurePlan:
    """What :func:`.measure.measure_kernels` would do now."""
    key = this_key()
    path, threads = (folder or tables_of(HERE)) / f"{key.digest}.json", thread_counts()
    total, earlier = len(wanted(key)) * len(threads), stopped(path)
    done = len(done_of(earlier)) if earlier else 0
    seconds = (_AGAIN_S if done else _BEFORE_S) + CASE_S * (total - done)
    stock = (earlier.reach_bytes if earlier else 0) or most_stock()
    return MeasurePlan(key, path, threads, total, done, min(limit_s, seconds), stock)


class Pace:
    """Advances ``task``, whose total are the seconds that are ``planned``.

    Args:
        limit_s: after which the measurement ends, whatever is left.
        cases: that are left. case_s: seconds that each is thought to take at first.
    """

    def __init__(
        self,
        task: ProgressTask,
        planned: float,
        limit_s: float,
        *,
        cases: int,
        case_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._task, self._planned, self._clock = task, max(planned, 1e-3), clock
        self._begun = clock()
        self._deadline = self._begun + limit_s
        self._left, self._done, self._case_s = cases, 0, case_s
        self._first: float | None = None  # when cases began to be timed
        self._shown = 0.0

    @property
    def left_s(self) -> float:
        """Seconds that are left: by the cases so far, and at most until the deadline."""
        now = self._clock()
        if self._first is None:
            expected = self._planned - (now - self._begun)
        else:
            took = now - self._first + _GUESSED * self._case_s
            expected = self._left * took / (self._done + _GUESSED)
        return max(min(expected, self._deadline - now), 0.0)

    def case(self, detail: str) -> None:
        """One more was timed, or failed."""
        self._first = self._clock() if self._first is None else self._first
        self._done, self._left = self._done + 1, max(self._left - 1, 0)
        self.tick(detail)

    def tick(self, detail: str = "") -> None:
        """Show how far it is; it never goes back."""
        passed = self._clock() - self._begun
        self._show(self._planned * passed / max(passed + self.left_s, 1e-9), detail)

    def end(self) -> None:
        """Nothing is left."""
        self._show(self._planned, "")

    def _show(self, amount: float, detail: str) -> None:
        if amount > self._shown:
            self._task.advance(amount - self._shown, detail=detail)
            self._shown = amount


def most_stock() -> int:
    """How large the file is at the most on this machine, in bytes."""
    wanted = min(_CACHES * (read_processor().last_level_cache_bytes or 0), _MOST_STOCK)
    return max(_LEAST_STOCK, min(wanted, read_memory().available // 4 >> 20 << 20))


def spans(stock: int) -> list[int]:
    """Working sets up to ``stock`` bytes, closer where a model leaves the last-level cache: most are larger,
    and not by much.
    """
    cache = read_processor().last_level_cache_bytes or 32 << 20
    around = {int(share * cache) >> 20 << 20 for share in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6)}
    small = {one for one in _SMALL if one <= 32 << 20 or one < min(around)}
    return sorted({one for one in around | small if 4 << 20 <= one <= 0.9 * stock} | {stock})


def enough_stock(readings: Sequence[Reading]) -> int:
    """How many bytes memory must serve, by the rates that were read over working sets of different sizes."""
    sizes = sorted({one.working_set for one in readings})
    largest = {one.threads: one.bytes_per_second for one in readings if one.working_set == sizes[-1]}
    cached = [
        one.working_set
        for one in readings
        if one.bytes_per_second > _ALIKE * largest.get(one.threads, one.bytes_per_second)
    ]
    first = min((size for size in sizes if size > max(cached, default=0)), default=sizes[-1])
    return min(max(2 * first, _LEAST_STOCK), max(sizes[-1], _LEAST_STOCK))


@contextmanager
def written_stock(size: int) -> Iterator[Path]:
    """A folder with the file that weights are read from."""
    with tempfile.TemporaryDirectory(prefix="edgepress-kernels-") as name:
        folder = Path(name)
        with disk_full_is_typed(folder), (folder / STOCK).open("wb") as stream:
            block = np.random.default_rng(0).integers(LEAST_BYTE, LAST_BYTE, _PART, np.uint8).tobytes()
            twice = memoryview(block + block)
            for index in range(size // _PART):
                start = 4099 * index % _PART  # no two parts are alike
                stream.write(twice[start : start + _PART])
        yield folder


def disk_rate(folder: Path, limit_s: float) -> float | None:
    """Bytes per second from the disk, of as much as is read in ``limit_s``; None where its cache cannot be
    dropped.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    with (folder / STOCK).open("rb", buffering=0) as stream:
        try:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return None
        part, read, start = bytearray(1 << 20), 0, time.perf_counter()
        while time.perf_counter() - start < limit_s and (count := stream.readinto(part)):
            read += count
    return read / (time.perf_counter() - start)
