"""``measure_kernels``: makes the kernel table of this machine in at most a minute, and goes on where it was
stopped.

Every stage has its share of the time: bandwidth and streams of weights a tenth each at the most, the disk
what a slow one needs for the stock. The rest is for the kernels, first of the most common cases, with each
number of threads, then of the others; what one of these leaves of its time is for the next.

The process that times: its request, its answers line by line, and its end.
"""

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from ... import __version__
from ...errors import EdgepressError, OutOfResource
from ...files.disk import require_disk
from ...files.limits import threads_in_words
from ...terminal.progress import Progress
from ..bandwidth import measure_bandwidths
from ..probe import read_memory
from .cases import Done, cases, common, done_of, families_of
from .plan import (
    CASE_S,
    LIMIT_S,
    MeasurePlan,
    Pace,
    disk_rate,
    enough_stock,
    plan,
    spans,
    stopped,
    wanted,
    written_stock,
)
from .table import HERE, Fixed, KernelTable, Reading, Streamed, now, write_table

_SAVE_EVERY_S = 2.0
# Of the whole time: for bandwidths, for streams.
_BANDWIDTHS, _STREAMS = 0.1, 0.1
_READ_S, _READS = 0.1, 20  # of one working set
_ROUNDS = 2  # of streams, at the beginning
_SLOW_DISK = 4e8  # bytes per second that time is kept for
_LEAST_DISK_S = 0.5
_WORTH_S = 2.0  # less is not worth another process
_END = 0.03  # of the whole time: for what ends after its moment, and for writing the table


def measure_kernels(
    progress: Progress, *, folder: Path | None = None, limit_s: float = LIMIT_S
) -> tuple[KernelTable, Path]:
    """Time every case, for at most ``limit_s`` seconds; the table, and the file of ``folder`` that it is in:
    by default of the user's configuration.

    What was timed is kept: where the time did not suffice, or the process was stopped, the next call goes on.
    """
    return _Measurement(plan(folder, limit_s), limit_s).run(progress)


class _Measurement:
    """One call: its deadline, and what is known so far."""

    def __init__(self, planned: MeasurePlan, limit_s: float) -> None:
        self.plan, self.limit_s = planned, limit_s
        self.begun = time.monotonic()
        self.deadline = self.begun + (1 - _END) * limit_s
        self.busy: float | None = None
        earlier = stopped(planned.path)
        self.done: Done = done_of(earlier) if earlier else {}
        self.fixed: list[Fixed] = list(earlier.fixed) if earlier else []
        self.readings: list[Reading] = list(earlier.bandwidth) if earlier else []
        self.streams: list[Streamed] = list(earlier.streams) if earlier else []
        self.stock = earlier.reach_bytes if earlier else 0
        names = ("start", "resident", "disk_bytes_per_second", "choose")
        self.numbers: dict[str, Any] = {name: getattr(earlier, name) for name in names} if earlier else {}
        self.failed: set[tuple[int, int]] = set()

    def run(self, progress: Progress) -> tuple[KernelTable, Path]:
        require_disk(Path(tempfile.gettempdir()), self.plan.stock)
        if 3 * self.plan.stock > read_memory().available:
            raise OutOfResource(f"measuring needs {3 * self.plan.stock / 1e9:.1f} GB of free memory")
        with progress.task("measuring kernels", self.plan.seconds) as task:
            left, unread = self.plan.cases - self.plan.done, self.numbers.get("disk_bytes_per_second") is None
            self.pace = Pace(task, self.plan.seconds, self.limit_s, cases=left, case_s=CASE_S)
            self.busy = psutil.cpu_percent(interval=0.5)
            self._bandwidths()
            disk_s = _disk_seconds(self.stock) if unread else 0.0
            self.deadline -= disk_s
            with written_stock(self.stock) as folder:
                self.pace.tick("weights")
                self._kernels(folder)
                if unread:  # last: what is dropped from the page cache may come back in single pages
                    self.numbers["disk_bytes_per_second"] = disk_rate(folder, disk_s)
            self.pace.end()
        return self._save(), self.plan.path

    def _bandwidths(self) -> None:
        """Those that are not known, as far as the time suffices; then how large the stock is."""
        share = self.limit_s * _BANDWIDTHS / len(self.plan.threads)
        known = {(one.threads, one.working_set) for one in self.readings}
        for threads in self.plan.threads:
            sizes = [size for size in spans(self.plan.stock) if (threads, size) not in known]
            if not sizes:
                continue
            limit_s = min(share, max(self.deadline - time.monotonic(), 0.1))
            how: dict[str, Any] = {"threads": threads, "repeats": _READS, "seconds": _READ_S}
            for found in measure_bandwidths(sizes, **how, limit_s=limit_s):
                rate = found.bytes_per_second
                self.readings.append(
                    Reading(threads=threads, working_set=found.working_set, bytes_per_second=rate)
                )
            self.pace.tick(f"bandwidth, {threads_in_words(threads)}")
        self.stock = self.stock or enough_stock(self.readings)
        self._save()

    def _kernels(self, folder: Path) -> None:
        """All that is left, as far as the time suffices."""
        while queue := self._left():
            before = len(self.done)
            for place, (threads, left) in enumerate(queue):
                share = len(left) / sum(len(one) for _, one in queue[place:])
                moment = time.monotonic()
                self._time(folder, threads, left, moment + share * max(self.deadline - moment, 0.0))
            if len(self.done) == before or self.deadline - time.monotonic() < _WORTH_S:
                return

    def _left(self) -> list[tuple[int, list[int]]]:
        """Numbers of threads with cases, the most common first."""
        usual, every = common(), wanted(self.plan.key)
        parts = ([one for one in every if one < usual], [one for one in every if one >= usual])
        settled = {*self.done, *self.failed}
        found = [
            (threads, [index for index in part if (index, threads) not in settled])
            for part in parts
            for threads in self.plan.threads
        ]
        return [(threads, left) for threads, left in found if left]

    def _time(self, folder: Path, threads: int, left: list[int], until: float) -> None:
        """These cases with so many threads."""
        saved = time.monotonic()
        for message in timed_cases(self._request(folder, threads, left), until):
            self._take(message, threads)
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()

    def _request(self, folder: Path, threads: int, left: list[int]) -> dict[str, Any]:
        fixed = [one for one in self.fixed if one.threads == threads]
        streamed = {one.working_set for one in self.streams if one.threads == threads}
        return {
            "folder": str(folder),
            "threads": threads,
            "cases": left,
            "fixed": fixed[0].model_dump(exclude={"threads"}) if fixed else None,
            "spans": [size for size in spans(self.stock) if size not in streamed],
            "rounds": _ROUNDS,
            "stream_s": self.limit_s * _STREAMS / len(self.plan.threads),
        }

    def _take(self, message: dict[str, Any], threads: int) -> None:
        """Keep what the process that times says."""
        if "ready" in message:
            self.numbers |= {"resident": message["ready"], "start": message["after"]}
            self.pace.tick(threads_in_words(threads))
        elif "fixed" in message:
            self.fixed.append(Fixed(threads=threads, **message["fixed"]))
            self.numbers["choose"] = message["choose"]
        elif "stream" in message:
            self.streams.append(Streamed(threads=threads, **message["stream"]))
            self.pace.tick(threads_in_words(threads))
        elif "error" in message:
            self.failed.add((message["case"], threads))
            self.pace.case(threads_in_words(threads))
        else:
            fixed = next(one for one in self.fixed if one.threads == threads)
            bound = fixed.run + fixed.value * message["bound"]
            times = [max((message[name] - bound) / message["nodes"], 1e-9) for name in ("median", "least")]
            self.done[message["case"], threads] = (times[0], times[1])
            self.pace.case(threads_in_words(threads))

    def _save(self) -> KernelTable:
        every = {(index, threads) for index in wanted(self.plan.key) for threads in self.plan.threads}
        table = KernelTable(
            schema="edgepress.kernel-table/1",
            key=self.plan.key,
            machine=HERE,
            tool=f"edgepress {__version__}",
            created_utc=now(),
            took=time.monotonic() - self.begun,
            busy_percent=self.busy,
            complete=not every - set(self.done) - self.failed,
            reach_bytes=self.stock,
            fixed=sorted(self.fixed, key=lambda one: one.threads),
            bandwidth=self.readings,
            streams=self.streams,
            families=families_of(self.done, cases()),
            **self.numbers,
        )
        write_table(self.plan.path, table)
        return table


def _disk_seconds(stock: int) -> float:
    """That reading it from a slow disk may take."""
    return max(stock / _SLOW_DISK, _LEAST_DISK_S)


def timed_cases(request: dict[str, Any], until: float) -> Iterator[dict[str, Any]]:
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
