"""RAPL: the energy counters of Intel and AMD processors as Linux shows them, one package a socket.

Domains overlap: psys holds the packages, and a package holds its cores, so that only packages are added.
Memory (dram) and the whole board (psys) are read beside them.
"""

import sys
from functools import partial
from pathlib import Path

from ...runtime.session.threads import read_line
from ..energy import Counter, Meter, MeterLost, NoMeter

DEVICE = "cpu"
POWERCAP = Path("/sys/class/powercap")
UPDATE_S = 0.001
# AMD's too. intel-rapl-mmio counts the same packages over again.
ZONES = "intel-rapl:*"
PACKAGE, BESIDE = "package", ("psys", "dram")
FIX = (
    "let a trusted user read it, until the next start: "
    "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
)


def find() -> Meter | NoMeter | None:
    """The packages of this machine, all of them or none."""
    zones = {_domain(zone): zone for zone in sorted(POWERCAP.glob(ZONES))}
    counters = [_counter(domain, zone) for domain, zone in zones.items()]
    packages = [one for one in counters if one.domain.startswith(PACKAGE) and "/" not in one.domain]
    if not packages:
        if not sys.platform.startswith("linux"):
            return None
        return NoMeter(
            "this machine shows no CPU energy counter, as most virtual machines and containers do not"
        )
    beside = [one for one in counters if one.domain.endswith(BESIDE) and _readable(one)]
    try:
        for counter in packages:
            counter.read()
    except MeterLost as error:
        denied = isinstance(error.__cause__, PermissionError)
        reason = "the CPU's energy counter is for root only (since CVE-2020-8694)" if denied else error.what
        return NoMeter(reason, FIX if denied else "")
    return Meter("rapl_pkg", tuple(packages), tuple(beside), UPDATE_S)


def _domain(zone: Path) -> str:
    """``package-0`` or ``psys``; what lies inside another zone has its name before: ``package-0/dram``."""
    name, parent = read_line(zone / "name") or zone.name, zone.name.rpartition(":")[0]
    outer = read_line(zone.with_name(parent) / "name") if ":" in parent else None
    return name if outer is None else f"{outer}/{name}"


def _counter(domain: str, zone: Path) -> Counter:
    top = read_line(zone / "max_energy_range_uj")
    wraps_at = int(top) if top is not None and top.isdigit() else None
    return Counter(domain, partial(_microjoules, zone / "energy_uj"), wraps_at)


def _microjoules(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MeterLost(f"the CPU's energy counter cannot be read: {why}") from error


def _readable(counter: Counter) -> bool:
    try:
        counter.read()
    except MeterLost:
        return False
    return True
