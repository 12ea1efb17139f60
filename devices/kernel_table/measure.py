"""``measure_kernels``: makes the kernel table of this machine in about a minute, and goes on where it was
stopped.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import psutil

from ... import __version__
from ...disk import require_disk
from ...errors import OutOfResource
from ...runtime.kernels.library import instructions
from ...runtime.session.session import onnxruntime
from ...runtime.session.threads import thread_budget
from ...terminal import Progress, ProgressTask
from ..bandwidth import measure_bandwidth
from ..probe import read_memory
from ..processor import read_processor
from .cases import cases
from .families import Done, done_of, families_of
from .kept import HERE, tables_of
from .stock import disk_rate, spans, stock_bytes, written_stock
from .table import Fixed, KernelTable, Key, Reading, Streamed, now, read_table, write_table
from .timing_process import timed_cases

LIMIT_S = 60.0
_SAVE_EVERY_S = 2.0
_ROUNDS = 2  # of streams, at the beginning
_SLOW_DISK = 4e8  # bytes per second that time is kept for
_LEAST_DISK_S = 0.5
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
        key, path, threads, total, done, min(LIMIT_S, 5 + CASE_S * (total - done)), stock_bytes()
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


def _disk_seconds(stock: int) -> float:
    """That reading it from a slow disk may take."""
    return max(stock / _SLOW_DISK, _LEAST_DISK_S)


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
            with written_stock(self.plan.stock) as folder:
                unread = "disk_bytes_per_second" not in self.numbers
                self.deadline -= _disk_seconds(self.plan.stock) if unread else 0.0
                self._bandwidths()
                share = (self.deadline - time.monotonic()) / len(self.plan.threads)
                for index, threads in enumerate(self.plan.threads):
                    last = index + 1 == len(self.plan.threads)
                    until = self.deadline if last else time.monotonic() + share
                    self._time(folder, threads, until, task)
                if unread:  # last: what is dropped from the page cache may come back in single pages
                    self.numbers["disk_bytes_per_second"] = disk_rate(folder, _disk_seconds(self.plan.stock))
        return self._save(), self.plan.path

    def _bandwidths(self) -> None:
        known = {(one.threads, one.working_set) for one in self.readings}
        for threads, size in product(self.plan.threads, spans(self.plan.stock)[::2]):
            if (threads, size) not in known:
                rate = measure_bandwidth(size, threads=threads, repeats=3).bytes_per_second
                self.readings.append(Reading(threads=threads, working_set=size, bytes_per_second=rate))

    def _time(self, folder: Path, threads: int, until: float, task: ProgressTask) -> None:
        """Every case that is left, with so many threads."""
        left = [index for index in _wanted(self.plan.key) if (index, threads) not in self.done]
        saved = time.monotonic()
        request: dict[str, Any] = {"folder": str(folder), "threads": threads, "cases": left}
        known = any(one.threads == threads for one in self.streams)
        request |= {"spans": spans(self.plan.stock), "rounds": 0 if known else _ROUNDS}
        for message in timed_cases(request, until):
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
