"""Clock frequency and temperature beside a measurement: a reading every two seconds, by another thread."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from .settle import throttled
from .state import read_sensors

EVERY_S = 2.0
MOST_READINGS = 600


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
