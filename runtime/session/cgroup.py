"""What the control groups above this process grant, version 1 or 2: CPU time and memory."""

from __future__ import annotations

import math
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
