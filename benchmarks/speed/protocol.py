"""How a measurement is run: fresh processes, warm-up by rule, one timed block in each, two arms interleaved.

The statistics follow pyperf: many processes, because what a process gets by chance (addresses, pages, cores)
stays with it and makes its blocks alike; and a fixed warm-up, never "until it looks stable". The order of two
arms is ABBA, so that whatever drifts, drifts over both alike. The number of blocks is fixed beforehand, or it
has a least and a limit of time: blocks are added until the intervals are narrow, wherever they lie, so that a
run never ends because the result looks good. Clocks are monotonic, and notice that the machine slept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from ...errors import InputError
from ...files.limits import require_seed

MIN_WARMUP_ITERATIONS = 3
# Half of an interval wider than this part of its median, and the number is a hint.
WIDE = 0.05


@dataclass(frozen=True)
class Protocol:
    """The plan of one measurement, recorded with it.

    Attributes:
        blocks: timed blocks per arm, each in a fresh process; with ``most_seconds`` the fewest.
        block_ms: a block repeats its work until it has lasted this long.
        warmup_iterations, warmup_seconds: each process works untimed until both are reached.
        energy_windows: windows of each phase per arm in which energy is counted, each in a fresh process.
        energy_seconds: a window repeats its phase until it has lasted this long.
        most_seconds: how long measuring may take while blocks are added because the interval of a speed is
            wider than ±5 %; 0 for no block more than ``blocks``.
        seed: of the prompts and the bootstrap.
    """

    blocks: int = 10
    block_ms: float = 100.0
    warmup_iterations: int = MIN_WARMUP_ITERATIONS
    warmup_seconds: float = 2.0
    energy_windows: int = 3
    energy_seconds: float = 5.0
    most_seconds: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_seed(self.seed)
        if self.blocks < 1:
            raise InputError(f"{self.blocks} blocks measure nothing", fix="use at least 1, better 10")
        if self.warmup_iterations < MIN_WARMUP_ITERATIONS:
            raise InputError(
                f"{self.warmup_iterations} warm-up iterations are too few",
                fix=f"use at least {MIN_WARMUP_ITERATIONS}",
            )

    @classmethod
    def quick(cls, seed: int = 0) -> Protocol:
        """A look, not a result to publish: six blocks, half a second of warm-up, one window of energy."""
        return cls(blocks=6, warmup_seconds=0.5, energy_windows=1, energy_seconds=2.0, seed=seed)

    @staticmethod
    def turns(arms: int) -> Iterator[list[int]]:
        """Which arm runs when, without an end, a list per round: ``[0, 1], [1, 0], [0, 1], …``."""
        forwards = list(range(arms))
        return (forwards if turn % 2 == 0 else forwards[::-1] for turn in count())

    def describe(self, arms: int, blocks: int) -> dict[str, Any]:
        """JSON for the record of arms that were measured with so many ``blocks`` each."""
        until = f"until each speed is within {100 * WIDE:.0f} %, from {self.blocks} blocks to "
        return {
            **asdict(self),
            "blocks": blocks,
            "processes": blocks,
            "order": "ABBA" if arms > 1 else "A",
            "stop_rule": until + f"{self.most_seconds:g} s"
            if self.most_seconds
            else "fixed number of blocks",
            "timer": "perf_counter_ns",
        }


def warm_up(
    work: Callable[[], object], *, iterations: int, seconds: float, clock: Callable[[], int]
) -> tuple[int, float]:
    """Call ``work`` until at least ``iterations`` calls **and** ``seconds`` have passed.

    Returns:
        The calls and seconds that it came to. ``clock`` counts nanoseconds.
    """
    start, done = clock(), 0
    while done < iterations or clock() - start < seconds * 1e9:
        work()
        done += 1
    return done, (clock() - start) / 1e9


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
    """Says whether the machine slept since the watch was made."""

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
