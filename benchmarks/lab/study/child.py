"""A command run as a child process, with what it cost: the only honest way to measure a peak of memory.

The parent must be small itself: on Linux a child's peak begins with what its parent held when it was started.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a finished child used: seconds and bytes."""

    wall_seconds: float
    cpu_seconds: float
    peak_rss: int


def run_module(module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run ``python -m module arguments`` to its end; its stdout is dropped, its stderr is shown."""
    command = [sys.executable, "-m", module, *arguments]
    started = time.monotonic()
    child = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
    )
    cost = waited(child, started)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode} from: {' '.join(command)}")
    return cost


def waited(child: subprocess.Popen[bytes], started: float) -> Cost:
    """Wait for ``child``, begun at ``started`` on the monotonic clock; returns what it used."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)
