"""A child under a hard limit of memory, and how much a directory grows meanwhile."""

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup/memory")


def hard_limit(most: int) -> tuple[Callable[[], None], str]:
    """What a child calls before it starts, so that it may hold ``most`` bytes, and what that is called: a
    memory control group below this process's own where it may make one, else a limit of private memory.
    """
    own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    place = next((line.split(":", 2)[2] for line in own if line.split(":")[1] == "memory"), None)
    if place is not None:
        group = _GROUPS / place.lstrip("/") / "edgepress-lab"
        try:
            group.mkdir(exist_ok=True)
            (group / "memory.limit_in_bytes").write_text(str(most), encoding="ascii")
            return lambda: _join(group), f"memory control group of {most / 1e9:.0f} GB, page cache included"
        except OSError:
            pass
    return (
        lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
        f"RLIMIT_DATA of {most / 1e9:.0f} GB",
    )


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def sizes_below(directory: Path) -> int:
    """Bytes that the files of ``directory`` occupy, one with several names once; files that go away meanwhile
    count nothing.
    """
    found: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                status = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


@contextmanager
def watched(directory: Path) -> Iterator[Callable[[], int]]:
    """Follow what ``directory`` occupies; the function gives its largest growth so far."""
    before = largest = sizes_below(directory)
    stop = threading.Event()

    def follow() -> None:
        nonlocal largest
        while not stop.wait(1.0):
            largest = max(largest, sizes_below(directory))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield lambda: largest - before
    finally:
        stop.set()
        thread.join()
