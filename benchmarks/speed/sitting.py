"""What a run that nobody watches has beside the measurement: the machine comes to rest before, threads keep
to cores of their own, sensors are read meanwhile, and every round is kept in case that the run is cut short.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ...devices.sensor_trace import SensorTrace
from ...devices.settle import settle
from ...runtime.session.threads import compute_cpus
from ...terminal.progress import Progress
from .latency import Round

SETTLE_S = 60.0


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
