"""What this process may use: CPU time and memory that control groups grant, and how many threads follow.

The number of threads is the smallest of these limits: physical cores in the affinity mask (two hyper-threads
of a core share its one multiplier, and the slowest core sets the pace of a split matrix, so efficiency cores
are left out), and the CPU quota of every control group above the process, version 1 or 2.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path

PROC, SYS = Path("/proc"), Path("/sys")


def cpu_quota(proc: Path = PROC, sys: Path = SYS) -> float:
    """CPUs' worth of time; infinity without a limit. The paths are for tests."""
    v1, v2 = _folders(proc, sys, "cpu")
    return min([math.inf, *map(_quota_v2, v2), *map(_quota_v1, v1)])


def memory_limit(proc: Path = PROC, sys: Path = SYS) -> int | None:
    """Bytes; None without a limit. The paths are for tests."""
    v1, v2 = _folders(proc, sys, "memory")
    texts = [read_line(folder / "memory.max") for folder in v2]
    texts += [read_line(folder / "memory.limit_in_bytes") for folder in v1]
    return min((int(text) for text in texts if text is not None and text.isdecimal()), default=None)


def memory_left(proc: Path = PROC, sys: Path = SYS) -> int | None:
    """Bytes that the groups leave this process, all of whose other processes count; None without a limit.
    Files in the kernel's cache are taken back before anything is ended. The paths are for tests.
    """
    v1, v2 = _folders(proc, sys, "memory")
    left = [_left(folder, "memory.max", "memory.current", "") for folder in v2]
    left += [_left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_") for folder in v1]
    return min((one for one in left if one is not None), default=None)


def _left(folder: Path, limit: str, held: str, prefix: str) -> int | None:
    """Bytes between the limit of a group and what its processes hold."""
    texts = [read_line(folder / limit) or "", read_line(folder / held) or "0"]
    if not all(text.isdecimal() for text in texts):
        return None
    most, used = map(int, texts)
    counts = (line.partition(" ") for line in (read_line(folder / "memory.stat") or "").splitlines())
    files = (f"{prefix}inactive_file", f"{prefix}active_file")
    cached = sum(int(count) for name, _, count in counts if name in files and count.isdecimal())
    return max(0, most - max(0, used - cached))


def free_memory() -> int:
    """Bytes that this process may still take: what is available, within what its groups leave."""
    import psutil  # only here: it costs a start

    available, left = psutil.virtual_memory().available, memory_left()
    return int(available if left is None else min(left, available))


def read_line(path: Path) -> str | None:
    """A small kernel file without the blanks around it; None when it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _folders(proc: Path, sys: Path, controller: str) -> tuple[list[Path], list[Path]]:
    """Directories that may limit ``controller`` for this process, version 1's and version 2's."""
    v1: list[Path] = []
    v2: list[Path] = []
    for line in (read_line(proc / "self/cgroup") or "").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            for mount in (sys / "fs/cgroup", sys / "fs/cgroup/unified"):
                v2 += _ancestors(mount, group)
        elif controller in controllers.split(","):
            for mount in (sys / "fs/cgroup" / controllers, sys / "fs/cgroup" / controller):
                v1 += _ancestors(mount, group)
    return v1, v2


def _ancestors(mount: Path, group: str) -> list[Path]:
    """The group's directory and all above it; in a container only the mount itself may exist."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _ratio(quota: str, period: str) -> float:
    if not (quota.isdecimal() and period.isdecimal()) or int(quota) == 0 or int(period) == 0:
        return math.inf
    return int(quota) / int(period)


def _quota_v2(folder: Path) -> float:
    quota, _, period = (read_line(folder / "cpu.max") or "max").partition(" ")
    return _ratio(quota, period or "100000")


def _quota_v1(folder: Path) -> float:
    period = read_line(folder / "cpu.cfs_period_us")
    return _ratio(read_line(folder / "cpu.cfs_quota_us") or "-1", period or "100000")


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


def compute_cpus(
    threads: int, *, affinity: Iterable[int] | None = None, sys: Path = Path("/sys")
) -> list[int]:
    """A logical CPU for each thread, every one on a fast core of its own; none where there are too few cores,
    or the system does not tell. The paths are for tests.
    """
    if affinity is None and not hasattr(os, "sched_getaffinity"):
        return []
    allowed = set(os.sched_getaffinity(0) if affinity is None else affinity)
    cores = _cores(_performance_cpus(allowed, sys), sys)
    chosen = sorted(min(core & allowed) for core in cores)[:threads]
    return chosen if len(chosen) == threads else []


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
    return len(_cores(cpus, sys))


def _cores(cpus: set[int], sys: Path) -> set[frozenset[int]]:
    """Distinct cores among logical CPUs; a CPU without topology counts as a core of its own."""
    cores: set[frozenset[int]] = set()
    for cpu in cpus:
        topology = sys / f"devices/system/cpu/cpu{cpu}/topology"
        siblings = _cpu_list(
            read_line(topology / "core_cpus_list") or read_line(topology / "thread_siblings_list")
        )
        cores.add(frozenset(siblings | {cpu}))
    return cores
