"""Whether a device can do the work, checked by what it says of itself, before anything is sent there.

Which wheels run on a platform: system, processor, C library and version of Python.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...errors import OutOfResource, UnknownName
from .answers import DeviceError, Facts

# Machines that ONNX Runtime has wheels for, as their systems name them.
MACHINES = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",)}
OLDEST_PYTHON, OLDEST_GLIBC = (3, 11), (2, 28)
# The interpreter, ONNX Runtime and what a session takes beside the weights.
MEMORY_BESIDE = 250 << 20
DISK_BESIDE = 64 << 20
CLOCK_OFF_S = 60
# For kits: what is carried there is for the oldest system that is served, and for these versions of Python.
NAMED = {
    "linux-x86_64": ("Linux", "x86_64"),
    "linux-aarch64": ("Linux", "aarch64"),
    "macos-arm64": ("Darwin", "arm64"),
    "windows-amd64": ("Windows", "AMD64"),
}
OLDEST_MACOS, NEWEST_MACOS_TAG = 11, 14


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


@dataclass(frozen=True)
class Platform:
    """``python`` as (3, 13); ``glibc`` as (2, 41), or on macOS ``macos`` as 15."""

    system: str
    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int] = OLDEST_GLIBC
    macos: int = NEWEST_MACOS_TAG

    @classmethod
    def of(cls, facts: Facts) -> Platform:
        """That of a device."""
        release = facts.macos.split(".")[0]
        macos = int(release) if release.isdecimal() else NEWEST_MACOS_TAG
        return cls(facts.os, facts.machine, facts.version, facts.glibc or OLDEST_GLIBC, macos)

    @classmethod
    def named(cls, name: str, python: tuple[int, int]) -> Platform:
        """One of :data:`NAMED`; raises UnknownName."""
        if name not in NAMED:
            raise UnknownName("platform", name, NAMED)
        system, machine = NAMED[name]
        return cls(system, machine, python)

    @property
    def tags(self) -> list[str]:
        """What wheels for it are tagged with, the newest first."""
        if self.system == "Linux":
            minors = range(self.glibc[1] if self.glibc[0] == 2 else 99, 16, -1)
            return [
                *(f"manylinux_2_{minor}_{self.machine}" for minor in minors),
                f"manylinux2014_{self.machine}",
            ]
        if self.system == "Darwin":
            releases = range(self.macos, OLDEST_MACOS - 1, -1)
            return [
                f"macosx_{release}_0_{kind}" for release in releases for kind in (self.machine, "universal2")
            ]
        return ["win_amd64"]

    def takes(self, wheel: str) -> bool:
        """Whether the wheel of this file name runs there."""
        python, abi, place = wheel.removesuffix(".whl").split("-")[-3:]
        major, minor = self.python
        own = f"cp{major}{minor}"
        older = {f"cp{major}{one}" for one in range(2, minor + 1)}
        pythons = set(python.split("."))
        fits = (
            bool(pythons & {f"py{major}", own} and abi in ("none", own))
            or (abi == "abi3" and bool(pythons & older))
            or (abi == "none" and bool(pythons & older))
        )
        return fits and bool(set(place.split(".")) & {"any", *self.tags})
