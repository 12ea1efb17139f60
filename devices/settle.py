"""Waits until a machine is cool and quiet, for a bounded time, and says what speaks against its numbers.

A sensor that is missing is a doubt, not a reason to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ..runtime.session.threads import read_line
from .state import OTHER_CPU_LIMIT, State, read_state

# Cool is what has not cooled by more than this over so many looks.
STILL_COOLING_C, LOOKS = 1.0, 5
_PI = "devices/platform/soc/soc:firmware/get_throttled"
_NOW = 0xF  # the bits for now: under-voltage, frequency capped, throttled, soft limit of temperature


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
