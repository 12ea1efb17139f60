"""Whether a device can do the work, checked by what it says of itself, before anything is sent there."""

from __future__ import annotations

import time

from ...errors import OutOfResource
from .answers import DeviceError, Facts

# Machines that ONNX Runtime has wheels for, as their systems name them.
MACHINES = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",)}
OLDEST_PYTHON, OLDEST_GLIBC = (3, 11), (2, 28)
# The interpreter, ONNX Runtime and what a session takes beside the weights.
MEMORY_BESIDE = 250 << 20
DISK_BESIDE = 64 << 20
CLOCK_OFF_S = 60


def require_fit(facts: Facts, name: str) -> None:
    """Raise DeviceError where edgepress cannot run on such a system, whatever the bundle."""
    wrong = _unfit(facts)
    if wrong:
        raise DeviceError(
            f"edgepress cannot run on {name}",
            why=wrong,
            fix="it needs 64-bit Linux with glibc (x86-64, Arm) or macOS (Arm), and CPython 3.11 or newer",
        )


def _unfit(facts: Facts) -> str:
    if facts.machine not in MACHINES.get(facts.os, ()):
        return f"its system is {facts.os} on {facts.machine}"
    if facts.bits != 64:
        return f"its Python has {facts.bits} bits, on a machine of {facts.machine}"
    if facts.implementation != "cpython" or facts.version < OLDEST_PYTHON:
        return f"its Python is {facts.implementation} {facts.python}"
    if facts.os == "Linux" and (facts.glibc is None or facts.glibc < OLDEST_GLIBC):
        return f"its C library is {facts.libc or 'not glibc'}: the packages need glibc 2.28 or newer"
    return ""


def require_provider(facts: Facts, name: str, provider: str) -> None:
    """Raise DeviceError where ``provider`` needs a GPU that is not there."""
    if provider in ("cuda", "tensorrt") and not facts.nvidia:
        raise DeviceError(
            f"{name} has no GPU of NVIDIA's, or not its driver, and {provider} runs on nothing else",
            why="nothing was sent",
            fix="leave --provider out, or name a device that has one",
        )


def require_room(facts: Facts, name: str, *, memory: int, disk: int) -> None:
    """Raise OutOfResource where ``memory`` or ``disk`` bytes are not free there."""
    needs = {
        "memory": (memory + MEMORY_BESIDE, facts.memory_available),
        "disk": (disk + DISK_BESIDE, facts.disk_free),
    }
    for kind, (needed, free) in needs.items():
        if needed > free:
            raise OutOfResource(
                f"{name} has too little {kind}: {free / 1e9:.2f} of {needed / 1e9:.2f} GB are free",
                why="nothing was sent",
                fix=f"free some {kind} on {name}, or measure a smaller bundle",
            )


def clock_note(facts: Facts, name: str) -> str:
    """A sentence where the device's clock is another one than ours; else ""."""
    off = facts.clock - time.time()
    if abs(off) <= CLOCK_OFF_S:
        return ""
    side = "ahead" if off > 0 else "behind"
    return f"the clock of {name} is {abs(off) / 60:,.0f} minutes {side}: ours is recorded"
