"""``measure_kernels``: makes the kernel table of this machine in about a minute, and goes on where it was
stopped.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ... import __version__
from ...disk import disk_full_is_typed, require_disk
from ...errors import EdgepressError, OutOfResource
from ...runtime.kernels.library import instructions
from ...runtime.session.session import onnxruntime
from ...runtime.session.threads import thread_budget
from ...terminal import Progress, ProgressTask
from ..bandwidth import measure_bandwidth
from ..probe import read_memory
from ..processor import read_processor
from .cases import cases
from .chain import LAST_BYTE, LEAST_BYTE
from .families import Done, done_of, families_of
from .kept import HERE, tables_of
from .table import (
    Fixed,
    KernelTable,
    Key,
    Reading,
    Streamed,
    now,
    read_table,
    write_table,
)
from .timing import STOCK

LIMIT_S = 60.0
# Weights that come from memory would fill so many last-level caches. With four, each of two cores that have
# such a cache of their own still finds a third of its half there.
_CACHES, _LEAST_STOCK, _MOST_STOCK = 12, 64 << 20, 1 << 30
_SAVE_EVERY_S = 2.0
_ROUNDS = 2  # of streams, at the beginning
_OWN = "edgepress"
# Of a case, about: opening a session and its passes.
CASE_S = 0.025


@dataclass(frozen=True)
class MeasurePlan:
    """What a measurement will do: cases that are still to be timed, and about how long they take."""

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


def _wanted(key: Key) -> list[int]:
    """The cases that can be run here."""
    known = cases()
    own = key.kernels != "none"
    return [index for index, case in enumerate(known) if own or case.kind.domain != _OWN]


def plan(folder: Path | None = None) -> MeasurePlan:
    """What :func:`measure_kernels` would do now."""
    key = this_key()
    path, threads = (folder or tables_of(HERE)) / f"{key.digest}.json", thread_counts()
    total = len(_wanted(key)) * len(threads)
    stopped = _stopped(path)
    done = len(done_of(stopped)) if stopped else 0
    return MeasurePlan(
        key, path, threads, total, done, min(LIMIT_S, 5 + CASE_S * (total - done)), _stock_bytes()
    )


def measure_kernels(
    progress: Progress, *, folder: Path | None = None, limit_s: float = LIMIT_S
) -> tuple[KernelTable, Path]:
    """Time every case, for at most ``limit_s`` seconds; the table, and the file of ``folder`` that it is in:
    by default of the user's configuration.

    What was timed is kept: where the time did not suffice, or the process was stopped, the next call goes on.

    Raises:
        OutOfResource: too little memory or disk. MissingDependency: ONNX Runtime is not installed.
        EdgepressError: a process that times ended; names why.
    """
    return _Measurement(plan(folder), limit_s).run(progress)


def _stock_bytes() -> int:
    wanted = min(_CACHES * (read_processor().last_level_cache_bytes or 0), _MOST_STOCK)
    return max(_LEAST_STOCK, min(wanted, read_memory().available // 4 >> 20 << 20))


def _spans(stock: int) -> list[int]:
    """Working sets, closer where a model leaves the last-level cache: most are larger, and not by much."""
    cache = read_processor().last_level_cache_bytes or 32 << 20
    around = {int(share * cache) >> 20 << 20 for share in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6)}
    return sorted({one for one in around if 4 << 20 <= one < stock} | {stock})


def _stopped(path: Path) -> KernelTable | None:
    """The table of a measurement that was stopped; None where the last one was complete."""
    table = read_table(path) if path.exists() else None
    return None if table is None or table.complete else table


class _Measurement:
    """One call: its deadline, and what is known so far."""

    def __init__(self, planned: MeasurePlan, limit_s: float) -> None:
        self.plan = planned
        self.begun = time.monotonic()
        self.deadline = self.begun + limit_s
        self.busy: float | None = None
        earlier = _stopped(planned.path)
        self.done: Done = done_of(earlier) if earlier else {}
        self.fixed: list[Fixed] = list(earlier.fixed) if earlier else []
        self.readings: list[Reading] = list(earlier.bandwidth) if earlier else []
        self.streams: list[Streamed] = list(earlier.streams) if earlier else []
        names = ("start", "resident", "disk_bytes_per_second", "choose")
        self.numbers: dict[str, Any] = {name: getattr(earlier, name) for name in names} if earlier else {}
        self.failed: set[int] = set()

    def run(self, progress: Progress) -> tuple[KernelTable, Path]:
        require_disk(Path(tempfile.gettempdir()), self.plan.stock)
        if 3 * self.plan.stock > read_memory().available:
            raise OutOfResource(f"measuring needs {3 * self.plan.stock / 1e9:.1f} GB of free memory")
        self.busy = psutil.cpu_percent(interval=0.5)
        with progress.task("measuring kernels", self.plan.cases) as task:
            task.advance(len(self.done))
            with _stock(self.plan.stock) as folder:
                self.numbers.setdefault("disk_bytes_per_second", _disk_rate(folder / STOCK))
                self._bandwidths()
                share = (self.deadline - time.monotonic()) / len(self.plan.threads)
                for index, threads in enumerate(self.plan.threads):
                    last = index + 1 == len(self.plan.threads)
                    until = self.deadline if last else time.monotonic() + share
                    self._time(folder, threads, until, task)
        return self._save(), self.plan.path

    def _bandwidths(self) -> None:
        known = {(one.threads, one.working_set) for one in self.readings}
        for threads, size in product(self.plan.threads, _spans(self.plan.stock)[::2]):
            if (threads, size) not in known:
                rate = measure_bandwidth(size, threads=threads, repeats=3).bytes_per_second
                self.readings.append(Reading(threads=threads, working_set=size, bytes_per_second=rate))

    def _time(self, folder: Path, threads: int, until: float, task: ProgressTask) -> None:
        """Every case that is left, with so many threads."""
        left = [index for index in _wanted(self.plan.key) if (index, threads) not in self.done]
        saved = time.monotonic()
        request: dict[str, Any] = {"folder": str(folder), "threads": threads, "cases": left}
        known = any(one.threads == threads for one in self.streams)
        request |= {"spans": _spans(self.plan.stock), "rounds": 0 if known else _ROUNDS}
        for message in _child(request, until):
            if "ready" in message:
                self.numbers |= {"resident": message["ready"], "start": message["after"]}
            elif "fixed" in message:
                self.fixed = [one for one in self.fixed if one.threads != threads]
                self.fixed.append(Fixed(threads=threads, **message["fixed"]))
                self.numbers["choose"] = message["choose"]
            elif "stream" in message:
                self.streams.append(Streamed(threads=threads, **message["stream"]))
            elif "error" in message:
                self.failed.add(message["case"])
                task.advance()
            else:
                fixed = self.fixed[-1]
                bound = fixed.run + fixed.value * message["bound"]
                times = [
                    max((message[name] - bound) / message["nodes"], 1e-9) for name in ("median", "least")
                ]
                self.done[message["case"], threads] = (times[0], times[1])
                task.advance(detail=f"{threads} threads")
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()

    def _save(self) -> KernelTable:
        wanted = {(index, threads) for index in _wanted(self.plan.key) for threads in self.plan.threads}
        missing = {(index, threads) for index, threads in wanted - set(self.done) if index not in self.failed}
        table = KernelTable(
            schema="edgepress.kernel-table/1",
            key=self.plan.key,
            machine=HERE,
            tool=f"edgepress {__version__}",
            created_utc=now(),
            took=time.monotonic() - self.begun,
            busy_percent=self.busy,
            complete=not missing,
            reach_bytes=self.plan.stock,
            fixed=sorted(self.fixed, key=lambda one: one.threads),
            bandwidth=self.readings,
            streams=self.streams,
            families=families_of(self.done, cases()),
            **self.numbers,
        )
        write_table(self.plan.path, table)
        return table


@contextmanager
def _stock(size: int) -> Iterator[Path]:
    """A folder with the file that weights are read from."""
    with tempfile.TemporaryDirectory(prefix="edgepress-kernels-") as name:
        folder = Path(name)
        with disk_full_is_typed(folder), (folder / STOCK).open("wb") as stream:
            block = np.random.default_rng(0).integers(LEAST_BYTE, LAST_BYTE, 1 << 20, np.uint8)
            for index in range(size >> 20):
                stream.write(np.roll(block, 4099 * index).tobytes())
        yield folder


def _disk_rate(path: Path) -> float | None:
    """Bytes per second from the disk; None where its cache cannot be dropped."""
    if not hasattr(os, "posix_fadvise"):
        return None
    with path.open("rb", buffering=0) as stream:
        try:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return None
        part, read, start = bytearray(1 << 20), 0, time.perf_counter()
        while count := stream.readinto(part):
            read += count
    return read / (time.perf_counter() - start)


def _child(request: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
    """What the process that times says, until it ends or ``until``; then it is ended."""
    start = time.monotonic()
    lines = queue.SimpleQueue[str | None]()
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.timing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        said = child.stdout

        def read() -> None:
            for line in said:
                lines.put(line)
            lines.put(None)

        reader = threading.Thread(target=read, daemon=True)
        try:
            reader.start()
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(request) + "\n")
                child.stdin.flush()
            while (wait := until - time.monotonic()) > 0 and (line := _next(lines, wait)) is not None:
                message = json.loads(line)
                yield {**message, "after": time.monotonic() - start} if "ready" in message else message
            if until > time.monotonic() and child.wait(10):
                complaints.seek(0)
                raise EdgepressError("the process that times kernels ended", why=complaints.read()[-800:])
        finally:
            child.kill()
            reader.join(10)


def _next(lines: queue.SimpleQueue[str | None], wait: float) -> str | None:
    try:
        return lines.get(timeout=wait)
    except queue.Empty:
        return None
