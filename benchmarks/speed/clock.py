"""Clocks for measuring: monotonic nanoseconds, and a watch for the machine having slept in between.

``perf_counter_ns`` ignores changes of the wall clock (NTP, DST, a user). On Linux it also stops during
suspend, so that a sleep is invisible in a duration; ``CLOCK_BOOTTIME`` runs on, and the difference of the
two grows by the time asleep.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# The two clocks are read one after the other: less than this between them is scheduling, not sleep.
SUSPEND_NS = 50_000_000


def asleep_ns() -> int:
    """Nanoseconds that the machine has slept since it started; 0 where the platform does not tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) - time.clock_gettime_ns(time.CLOCK_UPTIME_RAW)
    return 0


class SuspendWatch:
    """Tells whether the machine slept since the watch was made."""

    def __init__(self, asleep: Callable[[], int] = asleep_ns) -> None:
        self._asleep = asleep
        self._before = asleep()

    def suspended(self) -> bool:
        """True when a sleep of more than 50 ms lies in between."""
        return self._asleep() - self._before > SUSPEND_NS


def timer_overhead_ns(calls: int = 1000) -> float:
    """Mean cost of reading the clock once, in nanoseconds."""
    start = time.perf_counter_ns()
    for _ in range(calls):
        time.perf_counter_ns()
    return (time.perf_counter_ns() - start) / (calls + 1)
