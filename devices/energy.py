"""Energy counters: what a meter is, which one counts a device, and what passed between two readings.

A meter is a file of ``meters/`` with ``DEVICE`` (``cpu`` or ``cuda``) and ``find()``: the meter, the reason
why there is none, or None where the file is about another kind of machine. Nothing is estimated: a counter
that cannot be read is a reason, not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import MissingDependency
from ..plugins import load, names

PACKAGE = f"{__package__}.meters"
READERS = "Linux RAPL, NVIDIA's counter, Apple's and Jetson's through zeus, and a meter's log"

Snapshot = dict[str, int]


class MeterLost(MissingDependency):
    """A counter that could be read can be no longer, or has lost count."""

    code = "E-METER"
    way_out = "measure again; `edgepress doctor` says whether the counter can be read now"


@dataclass(frozen=True)
class Counter:
    """One counter of microjoules, which only grows but for its wraps.

    Attributes:
        domain: what it counts: ``package-0``, ``dram``, ``psys``, ``gpu``.
        read: microjoules now; raises :class:`MeterLost`.
        wraps_at: where it begins again at zero, or None where it does not.
    """

    domain: str
    read: Callable[[], int]
    wraps_at: int | None = None


@dataclass(frozen=True)
class Consumed:
    """What passed between two readings: joules of the counted domains together and of each one beside them,
    and how often a counter began again at zero.
    """

    joules: float
    beside: dict[str, float]
    wraps: int


@dataclass(frozen=True)
class Meter:
    """The counters of one device.

    Attributes:
        method: as the record names it, ``rapl_pkg`` or ``nvml_counter``.
        counted: domains that do not overlap: their sum is the device's energy.
        beside: domains that contain counted ones or lie outside; reported, never added.
        update_s: seconds from one step of the counter to the next.
        pending: why nothing is counted yet, and the way out, of a meter whose log comes afterwards.
    """

    method: str
    counted: tuple[Counter, ...]
    beside: tuple[Counter, ...]
    update_s: float
    pending: NoMeter | None = None

    def __str__(self) -> str:
        if self.pending is not None:
            return self.pending.reason
        beside = ", ".join(counter.domain for counter in self.beside)
        counted = ", ".join(counter.domain for counter in self.counted)
        return f"{counted} can be read{f', and beside it {beside}' if beside else ''} ({self.method})"

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        domains = [[counter.domain for counter in part] for part in (self.counted, self.beside)]
        return {"method": self.method, "domains": domains[0], "beside": domains[1], "update_s": self.update_s}

    def read(self) -> Snapshot:
        """Microjoules of every domain, now."""
        return {counter.domain: counter.read() for counter in (*self.counted, *self.beside)}

    def between(self, before: Snapshot, after: Snapshot) -> Consumed:
        """What passed from one snapshot to a later one."""
        passed: dict[str, int] = {}
        wraps = 0
        for counter in (*self.counted, *self.beside):
            passed[counter.domain] = after[counter.domain] - before[counter.domain]
            if passed[counter.domain] < 0:
                if counter.wraps_at is None:
                    raise MeterLost(f"the energy counter {counter.domain} went backwards")
                passed[counter.domain] += counter.wraps_at
                wraps += 1
        joules = sum(passed[counter.domain] for counter in self.counted) / 1e6
        return Consumed(joules, {one.domain: passed[one.domain] / 1e6 for one in self.beside}, wraps)


@dataclass(frozen=True)
class NoMeter:
    """Why no energy is measured, and the way out where this machine has one."""

    reason: str
    fix: str = ""

    def __str__(self) -> str:
        return self.reason

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"method": "none", "reason": self.reason, "fix": self.fix}


def find_meters(*, gpu: bool) -> dict[str, Meter | NoMeter]:
    """By device, of the processor and, where there is one, the GPU."""
    return {device: find_meter(device) for device in ("cpu", *(["cuda"] if gpu else []))}


def find_meter(device: str) -> Meter | NoMeter:
    """The meter that counts ``device`` (``cpu`` or ``cuda``); of several the one with the shortest step."""
    sources = [load(PACKAGE, name, "energy meter") for name in names(PACKAGE)]
    return choose([source.find() for source in sources if device == source.DEVICE])


def choose(found: Iterable[Meter | NoMeter | None]) -> Meter | NoMeter:
    """The finest of the meters; without one, every reason, and the first way out."""
    answers = [answer for answer in found if answer is not None]
    meters = [answer for answer in answers if isinstance(answer, Meter)]
    if meters:
        return min(meters, key=lambda meter: meter.update_s)
    lacking = [answer for answer in answers if isinstance(answer, NoMeter)]
    if not lacking:
        return NoMeter(f"edgepress reads {READERS}, and this system has none")
    fixes = [answer.fix for answer in lacking if answer.fix]
    return NoMeter("; ".join(answer.reason for answer in lacking), next(iter(fixes), ""))
