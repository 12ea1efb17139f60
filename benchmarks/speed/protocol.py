"""How a measurement is run: fresh processes, warm-up by rule, one timed block in each, two arms interleaved.

The statistics follow pyperf: many processes, because what a process gets by chance (addresses, pages, cores)
stays with it and makes its blocks alike; and a fixed warm-up, never "until it looks stable". The order of two
arms is ABBA, so that whatever drifts, drifts over both alike. The number of blocks is fixed beforehand, or it
has a least and a limit of time: blocks are added until the intervals are narrow, wherever they lie, so that a
run never ends because the result looks good. Clocks are monotonic, and notice that the machine slept.

The parent's side of a worker: starts the process, asks, and turns its errors and its death into typed
errors.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ...errors import BundleError, EdgepressError, InputError, OutOfResource
from ...files.limits import require_seed
from ...files.third_party_errors import memory_shortage
from .work.timed_work import Workload, to_json

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


class Arm:
    """One worker with one bundle: ``with Arm(path, workload, threads=2, provider="cpu") as arm:
    arm.ask("block", …)``.
    """

    def __init__(self, bundle: Path, workload: Workload, *, threads: int, provider: str) -> None:
        self.bundle = bundle
        self._fields = {
            "bundle": str(bundle),
            "workload": to_json(workload),
            "threads": threads,
            "provider": provider,
        }
        self._process: subprocess.Popen[str] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Arm:
        self._stderr: IO[str] = self._open.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        )
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            if kind is None:
                self._say({"do": "quit"})
            else:
                process.kill()
            process.communicate()
        self._open.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._running().pid

    def load(self, *, cold: bool) -> dict[str, Any]:
        """``{"seconds", "cold", "providers"}``; ``cold`` in the answer says whether the cache was proven
        empty.
        """
        return self.ask("load", cold=cold, **self._fields)

    def operators(self, *, per_op: bool = False) -> dict[str, Any]:
        """Time by operator, as :func:`.trace.summed` sums it; with ``per_op`` the ``accounts`` of
        :func:`.per_op.accounts` too.
        """
        return self.ask("operators", per_op=per_op, **self._fields)

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        process = self._running()
        self._say({"do": do, **fields})
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise self._death(process.wait(), do)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise typed_error(answer["error"])
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise EdgepressError("the worker has not been started")
        return self._process

    def _say(self, request: dict[str, Any]) -> None:
        stream = self._running().stdin
        try:
            print(json.dumps(request), file=stream, flush=True)
        except (BrokenPipeError, ValueError):
            # A dead worker cannot read it; ask() finds the end of its answers and reports the cause.
            return

    def _death(self, code: int, do: str) -> EdgepressError:
        self._stderr.seek(0)
        last = self._stderr.read()[-800:].strip()
        what = f"the process that measured {self.bundle} died during {do!r}"
        if code == -signal.SIGKILL:
            return OutOfResource(
                what,
                why="it was killed, as the kernel does when memory runs out",
                fix="close other programs, or measure a smaller model",
            )
        if shortage := memory_shortage(RuntimeError(last)):
            return shortage
        if code < 0:
            return BundleError(what, why=f"native crash with {signal.Signals(-code).name}. {last}".strip())
        return EdgepressError(what, why=last)


def typed_error(error: dict[str, Any]) -> EdgepressError:
    """The error of a worker as an exception of the class it had there."""
    # The class that brought the code, not one below it that only inherits it.
    kinds = {kind.code: kind for kind in reversed(_descendants(EdgepressError))}
    kind = kinds.get(error["code"], EdgepressError)
    if kind.__init__ is not EdgepressError.__init__:
        # UnknownName builds its own message from a list; the finished message fits its parent.
        kind = InputError
    return kind(error["what"], why=error["why"], fix=error["fix"])


def _descendants(kind: type[EdgepressError]) -> list[type[EdgepressError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _descendants(child))]
