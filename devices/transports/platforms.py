"""Which wheels run on a platform: system, processor, C library and version of Python."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnknownName
from .answers import Facts
from .fitness import OLDEST_GLIBC

# For kits: what is carried there is for the oldest system that is served, and for these versions of Python.
NAMED = {
    "linux-x86_64": ("Linux", "x86_64"),
    "linux-aarch64": ("Linux", "aarch64"),
    "macos-arm64": ("Darwin", "arm64"),
    "windows-amd64": ("Windows", "AMD64"),
}
OLDEST_MACOS, NEWEST_MACOS_TAG = 11, 14


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
