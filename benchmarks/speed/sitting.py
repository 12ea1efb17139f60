"""What a run that nobody watches has beside the measurement: the machine comes to rest before, threads keep
to cores of their own, sensors are read meanwhile, and every round is kept in case that the run is cut short.

Clock frequency and temperature beside a measurement: a reading every two seconds, by another thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ...devices.state import read_sensors, settle, throttled
from ...runtime.session.threads import compute_cpus
from ...terminal.progress import Progress
from .latency import Round

SETTLE_S = 60.0
EVERY_S = 2.0
MOST_READINGS = 600


@dataclass(frozen=True)
class Sitting:
    """How a run is sat through: how long to wait for rest, the rounds of an earlier sitting, and who keeps
    those of this one.
    """

    settle_s: float = SETTLE_S
    done: Sequence[Round] = ()
    keep: Callable[[Round], None] | None = None


class Watch:
    """``with Watch(sitting, threads, progress) as watch: …`` around what is timed; without a sitting nothing
    is done. The workers inherit the cores of the thread that starts them, the sensors' thread has all.
    """

    def __init__(self, sitting: Sitting | None, threads: int, progress: Progress) -> None:
        self._sitting, self._threads, self._progress = sitting, threads, progress
        self.state: dict[str, Any] = {}
        self.doubts: list[str] = []

    def __enter__(self) -> Watch:
        if self._sitting is not None:
            with self._progress.task("waiting for a cool and quiet machine", 1) as task:
                settled = settle(self._sitting.settle_s)
                task.advance()
            self.state["settled"] = settled.as_dict()
            self.doubts += settled.doubts
            self._trace = SensorTrace().__enter__()
            self._pin()
            if self._sitting.done:
                self.state["earlier_rounds"] = len(self._sitting.done)
                count = len(self._sitting.done)
                blocks = "1 block is" if count == 1 else f"{count} blocks are"
                self.doubts.append(f"{blocks} of a run that was cut short before")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sitting is not None:
            if self._before:
                os.sched_setaffinity(0, self._before)
            self._trace.__exit__(kind, error, trace)
            self.state["trace"] = self._trace.as_dict()
            self.doubts += self._trace.doubts()

    def _pin(self) -> None:
        cpus = compute_cpus(self._threads)
        self._before = os.sched_getaffinity(0) if cpus else set()
        if cpus:
            os.sched_setaffinity(0, cpus)
        self.state["pinned_cpus"] = cpus


class SensorTrace:
    """``with SensorTrace() as trace: …``, then :meth:`as_dict` and :meth:`doubts`."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every, self._ended = every_s, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._readings: list[tuple[float, float | None, float | None]] = []
        self._throttled = False

    def __enter__(self) -> SensorTrace:
        self._start, self._count = time.monotonic(), throttled()[1]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._read()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._read()
            self._ended.wait(self._every)

    def _read(self) -> None:
        now, count = throttled()
        self._throttled |= now or (count or 0) > (self._count or 0)
        self._readings.append((time.monotonic() - self._start, *read_sensors()))
        if len(self._readings) >= MOST_READINGS:
            self._readings, self._every = self._readings[::2], 2 * self._every

    def as_dict(self) -> dict[str, Any]:
        """The readings; a sensor that is not there has no column."""
        seconds, frequency, temperature = map(list, zip(*self._readings, strict=True))
        columns = {"frequency_mhz": frequency, "temperature_c": temperature}
        there = {name: values for name, values in columns.items() if any(one is not None for one in values)}
        return {"seconds": [round(one, 1) for one in seconds], **there}

    def doubts(self) -> list[str]:
        """Why the readings speak against the numbers."""
        return ["the processor was throttled during the run"] if self._throttled else []
