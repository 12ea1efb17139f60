"""The state of the machine around a measurement: load, power, clocks, heat, swap. Recorded before and after.

Counters in a :class:`State` only grow; :func:`disturbance` turns two of them into what happened in
between, and so into reasons to distrust the numbers.

Waits until a machine is cool and quiet, for a bounded time, and says what speaks against its numbers.

A sensor that is missing is a doubt, not a reason to wait.
"""

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from ..runtime.session.threads import read_line

# Between the two snapshots: other processes or the hypervisor took this fraction of the machine, or clocks
# fell this far.
OTHER_CPU_LIMIT = 10.0
STEAL_LIMIT = 2.0
FREQUENCY_DROP = 0.10
# Cool is what has not cooled by more than this over so many looks.
STILL_COOLING_C, LOOKS = 1.0, 5
_PI = "devices/platform/soc/soc:firmware/get_throttled"
_NOW = 0xF  # the bits for now: under-voltage, frequency capped, throttled, soft limit of temperature


class State(BaseModel):
    """One snapshot. None where the machine does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_seconds: float
    load: float | None
    ac: bool | None
    battery_percent: float | None
    governor: str | None
    energy_preference: str | None
    turbo: bool | None
    temperature_c: float | None
    frequency_mhz: float | None
    swap_bytes: int | None
    cpu_busy_s: float
    cpu_steal_s: float
    own_cpu_s: float
    logical_cpus: int


def read_state(sys: Path = Path("/sys")) -> State:
    """Take a snapshot; ``own_cpu_s`` covers this process and its children. The path is for tests."""
    times, cpu = psutil.cpu_times(), sys / "devices/system/cpu"
    battery = _sensor("sensors_battery")
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts guest time inside user time as well.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return State(
        at_seconds=time.monotonic(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        ac=bool(battery.power_plugged) if battery and battery.power_plugged is not None else None,
        battery_percent=battery.percent if battery else None,
        governor=read_line(cpu / "cpu0/cpufreq/scaling_governor"),
        energy_preference=read_line(cpu / "cpu0/cpufreq/energy_performance_preference"),
        turbo=_turbo(cpu),
        temperature_c=_hottest(),
        frequency_mhz=_frequency(),
        swap_bytes=_swap(),
        cpu_busy_s=total - idle,
        cpu_steal_s=getattr(times, "steal", 0.0),
        own_cpu_s=_own_cpu(),
        logical_cpus=os.cpu_count() or 1,
    )


def read_sensors() -> tuple[float | None, float | None]:
    """MHz of the clock and °C of the hottest sensor, None where there is none."""
    return _frequency(), _hottest()


def disturbance(before: State, after: State) -> tuple[dict[str, float | None], list[str]]:
    """What the rest of the machine did between two snapshots, and the reasons to distrust that follow.

    Returns:
        ``({"seconds", "other_cpu_pct", "steal_pct", "frequency_change_pct", "swap_growth_bytes"}, reasons)``.
    """
    seconds = max(after.at_seconds - before.at_seconds, 1e-9)
    capacity = seconds * after.logical_cpus
    steal = after.cpu_steal_s - before.cpu_steal_s
    own = after.own_cpu_s - before.own_cpu_s
    other = max(after.cpu_busy_s - before.cpu_busy_s - own - steal, 0.0)
    found: dict[str, float | None] = {
        "seconds": seconds,
        "other_cpu_pct": 100 * other / capacity,
        "steal_pct": 100 * steal / capacity,
        "frequency_change_pct": None,
        "swap_growth_bytes": None,
    }
    reasons = _load_reasons(100 * other / capacity, 100 * steal / capacity)
    if before.frequency_mhz and after.frequency_mhz:
        change = after.frequency_mhz / before.frequency_mhz - 1
        found["frequency_change_pct"] = 100 * change
        if change <= -FREQUENCY_DROP:
            reasons.append(f"the CPU's clock fell by {-100 * change:.0f} % during the run")
    if before.swap_bytes is not None and after.swap_bytes is not None:
        found["swap_growth_bytes"] = after.swap_bytes - before.swap_bytes
        if after.swap_bytes - before.swap_bytes > 16 << 20:
            reasons.append("the machine swapped during the run")
    reasons += _power_reasons(before, after)
    return found, reasons


def _power_reasons(before: State, after: State) -> list[str]:
    reasons = []
    if before.ac != after.ac:
        reasons.append("the power supply changed between mains and battery")
    policies = {"governor": "governor", "energy_preference": "energy preference", "turbo": "turbo"}
    for name, words in policies.items():
        first, last = getattr(before, name), getattr(after, name)
        if first != last:
            reasons.append(f"the {words} changed from {first} to {last} during the run")
    return reasons


def _load_reasons(other_pct: float, steal_pct: float) -> list[str]:
    reasons: list[str] = []
    if other_pct > OTHER_CPU_LIMIT:
        reasons.append(f"noisy: other processes used {other_pct:.0f} % of the CPUs")
    if steal_pct > STEAL_LIMIT:
        reasons.append(f"noisy: the hypervisor took {steal_pct:.0f} % of the CPUs")
    return reasons


def _sensor(name: str) -> Any:
    """A psutil sensor's reading; None where the platform has no such sensor."""
    reader = getattr(psutil, name, None)
    try:
        return reader() if reader else None
    except (OSError, NotImplementedError):
        return None


def _hottest() -> float | None:
    groups = _sensor("sensors_temperatures") or {}
    readings = [entry.current for entries in groups.values() for entry in entries if entry.current]
    return max(readings, default=None)


def _frequency() -> float | None:
    reading = _sensor("cpu_freq")
    return float(reading.current) if reading and reading.current else None


def _swap() -> int | None:
    with warnings.catch_warnings():
        # In some containers psutil cannot see the swap counters and warns; the total is still right.
        warnings.simplefilter("ignore", RuntimeWarning)
        reading = _sensor("swap_memory")
    return int(reading.used) if reading else None


def _turbo(cpu: Path) -> bool | None:
    off, boost = read_line(cpu / "intel_pstate/no_turbo"), read_line(cpu / "cpufreq/boost")
    if off is not None:
        return off == "0"
    return boost == "1" if boost is not None else None


def _own_cpu() -> float:
    """CPU seconds of this process, its reaped children and its living descendants."""
    me = psutil.Process()
    seconds = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system
        seconds += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return seconds


@dataclass(frozen=True)
class Settled:
    """How long it took, what the machine was like then, and the doubts that follow."""

    seconds: float
    busy_pct: float
    temperature_c: float | None
    doubts: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "doubts": list(self.doubts)}


def settle(
    limit_s: float,
    *,
    busy: Callable[[], float] = lambda: psutil.cpu_percent(interval=1),
    state: Callable[[], State] = read_state,
    clock: Callable[[], float] = time.monotonic,
    sys: Path = Path("/sys"),
) -> Settled:
    """Look once a second until others leave the processors alone and it no longer cools, at most ``limit_s``.

    What looks is an argument for tests.
    """
    start, heat = clock(), list[float]()
    while True:
        used, now = busy(), state()
        heat += [] if now.temperature_c is None else [now.temperature_c]
        quiet, cool = used <= OTHER_CPU_LIMIT, _cool(heat)
        if (quiet and cool) or clock() - start >= limit_s:
            break
    seconds = clock() - start
    doubts = [] if quiet else [f"noisy: others used {used:.0f} % of the CPUs after {seconds:.0f} s"]
    doubts += [] if cool else [f"it was still cooling after {seconds:.0f} s of waiting"]
    return Settled(seconds, used, now.temperature_c, (*doubts, *_lasting(now, sys)))


def _cool(heat: list[float]) -> bool:
    """No sensor is no reason to wait."""
    return not heat or (len(heat) >= LOOKS and heat[-LOOKS] - heat[-1] <= STILL_COOLING_C)


def _lasting(state: State, sys: Path) -> list[str]:
    """Doubts that no waiting removes."""
    doubts = []
    missing = [
        name
        for name, value in (("temperature", state.temperature_c), ("clock frequency", state.frequency_mhz))
        if value is None
    ]
    if missing:
        doubts.append(f"no sensor of {' and '.join(missing)}: throttling would not be seen")
    if state.ac is False:
        doubts.append("it runs on battery")
    driver = read_line(sys / "devices/system/cpu/cpu0/cpufreq/scaling_driver") or ""
    if state.governor == "powersave" and "pstate" not in driver:
        doubts.append("the governor powersave keeps its clock low")
    if state.energy_preference == "power":
        doubts.append("the energy preference power keeps its clock low")
    if throttled(sys)[0]:
        doubts.append("it is throttled now: too hot, or too weak a supply")
    return doubts


def throttled(sys: Path = Path("/sys")) -> tuple[bool, int | None]:
    """Whether the board says that it is throttled now, and how often its cores were since the start; None
    where nothing counts that.
    """
    board = read_line(sys / _PI) or "0"
    try:
        now = bool(int(board, 16) & _NOW)
    except ValueError:
        now = False
    files = (sys / "devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [int(text) for text in map(read_line, files) if text is not None and text.isdecimal()]
    return now, sum(counts) if counts else None
