"""How many threads to use: the cores this process may really use, not the cores of the machine.

The smallest of these limits: physical cores in the affinity mask (two hyper-threads of a core share its one
multiplier, and the slowest core sets the pace of a split matrix, so efficiency cores are left out), and the
CPU quota of every control group above the process, version 1 or 2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from .cgroup import cpu_quota, read_line

# Below this share of the fastest core's capacity a core is an efficiency core (big.LITTLE reports about
# 0.25–0.5).
_EFFICIENCY_SHARE = 0.6


def thread_budget(
    *, affinity: Iterable[int] | None = None, proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> int:
    """Threads for compute, at least 1. ``affinity`` are logical CPU numbers; the paths are for tests."""
    if affinity is None and not hasattr(os, "sched_getaffinity"):
        import psutil  # only here: Linux has affinity, and psutil costs a start

        return max(1, psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    allowed = set(os.sched_getaffinity(0) if affinity is None else affinity)
    cores = _physical_cores(_performance_cpus(allowed, sys), sys)
    return max(1, math.floor(min(cores, cpu_quota(proc, sys))))


def _cpu_list(text: str | None) -> set[int]:
    """``0-3,8`` as a set of CPU numbers; empty for anything else."""
    cpus: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _performance_cpus(allowed: set[int], sys: Path) -> set[int]:
    """The fast ones of ``allowed``: Intel's list of performance cores, or Linux's ``cpu_capacity`` on Arm."""
    listed = _cpu_list(read_line(sys / "devices/cpu_core/cpus")) & allowed
    if listed:
        return listed
    capacity: dict[int, int] = {}
    for cpu in allowed:
        text = read_line(sys / f"devices/system/cpu/cpu{cpu}/cpu_capacity")
        if text is None or not text.isdecimal():
            return allowed
        capacity[cpu] = int(text)
    fastest = max(capacity.values(), default=0)
    return {cpu for cpu, value in capacity.items() if value >= _EFFICIENCY_SHARE * fastest}


def _physical_cores(cpus: set[int], sys: Path) -> int:
    """Distinct cores among logical CPUs; a CPU without topology counts as a core of its own."""
    cores: set[frozenset[int]] = set()
    for cpu in cpus:
        topology = sys / f"devices/system/cpu/cpu{cpu}/topology"
        siblings = _cpu_list(
            read_line(topology / "core_cpus_list") or read_line(topology / "thread_siblings_list")
        )
        cores.add(frozenset(siblings | {cpu}))
    return len(cores)
