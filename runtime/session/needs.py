"""What work needs of this machine: planned before anything is loaded, and held against what is there."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import OutOfResource
from ...files.disk import disk_size, free_disk, require_disk
from ...files.limits import address_space_limit
from .threads import free_memory, memory_limit

# How far the time of a run may be from the plan's, either way: other work shares the machine.
_FASTER, _SLOWER = 0.5, 2.0
_UNITS = (("seconds", 1, 120), ("minutes", 60, 120), ("hours", 3600, 48), ("days", 86400, float("inf")))


@dataclass(frozen=True)
class Needs:
    """At its peak, of the work that is called ``what``.

    Attributes:
        reads: bytes of what it reads, by name.
        memory: resident bytes, what the process holds before it starts included.
        disk: bytes on the disk of its output.
        seconds: how long it takes, about.
        less: what would fit a smaller machine: an option, and the memory that it then needs.
    """

    what: str
    reads: Mapping[str, int]
    memory: int
    disk: int
    seconds: float
    less: tuple[tuple[str, int], ...] = ()

    def require(self, output: Path, most: float | None = None) -> int:
        """Refuse what does not fit the free memory, ``most`` GB of it, or the disk of ``output``; returns the
        bytes of memory that are there.
        """
        available = available_memory(most)
        if self.memory <= available:
            require_disk(output, self.disk)
            return available
        fits = [f"{option} ({gigabytes(size)})" for option, size in self.less if size <= available]
        more = "free some memory" if most is None else "free some memory, raise --max-memory"
        raise OutOfResource(
            f"{self.what} needs {lacking(self.memory, available)}",
            why="nothing was loaded",
            fix=f"what would fit: {', '.join(fits)}" if fits else f"{more}, or take a smaller model",
        )

    def headline(self, available: int) -> str:
        """The plan in a line."""
        return headline(self.memory, available, self.disk, self.seconds)

    def table(self, available: int, output: Path) -> str:
        """The plan, a line for each thing that is needed."""
        lines = [f"{'reads':8} {gigabytes(size)}: {name}" for name, size in self.reads.items()]
        lines += [
            f"{'memory':8} {gigabytes(self.memory)} at its peak, {gigabytes(available)} are there",
            f"{'disk':8} {disk_size(self.disk)}, {disk_size(free_disk(output))} are free",
            f"{'time':8} {time_range(self.seconds)}",
        ]
        return "\n".join([f"Plan of {self.what}", *(f"  {line}" for line in lines)])

    def as_dict(self) -> dict[str, Any]:
        """JSON for ``--dry-run --json``, with the keys of a compression's plan."""
        found = asdict(self)
        return {"peak_memory": found.pop("memory"), **found}


def available_memory(most: float | None = None) -> int:
    """Bytes that work on the CPU may take, what this process holds already included: at most ``most`` GB, and
    what is free within the limits of the process's control groups and of its address space.
    """
    bounds = (memory_limit(), address_space_limit(), None if most is None else int(most * 1e9))
    return min([free_memory() + resident(), *(bound for bound in bounds if bound is not None)])


def resident() -> int:
    """Resident bytes of this process now."""
    import psutil  # only here: it costs a start

    return int(psutil.Process().memory_info().rss)


def headline(memory: int, available: int, disk: int, seconds: float) -> str:
    """The plan of a run in a line."""
    return (
        f"plan: {gigabytes(memory)} of memory ({gigabytes(available)} are there), "
        f"{disk_size(disk)} of disk, {time_range(seconds)}"
    )


def time_range(seconds: float) -> str:
    """``4 to 15 minutes``: about how long work takes that is planned to take so many ``seconds``."""
    low, high = _FASTER * seconds, _SLOWER * seconds
    name, size = next((name, size) for name, size, most in _UNITS if high < most * size)
    return f"{max(1, round(low / size))} to {max(2, round(high / size))} {name}"


def lacking(needed: int, available: int) -> str:
    """``3.85 GB of memory, 3.00 GB are there``; in megabytes where both would read the same."""
    sizes = gigabytes(needed), gigabytes(available)
    if len(set(sizes)) == 1:
        sizes = f"{math.ceil(needed / 1e6):,} MB", f"{available // 10**6:,} MB"
    return f"{sizes[0]} of memory, {sizes[1]} are there"


def gigabytes(size: float) -> str:
    """``0.53 GB``, ``26 GB``."""
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
