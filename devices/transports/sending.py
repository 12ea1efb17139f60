"""Brings a bundle and the environment that measures it to a device; what is there by its hash is not sent.

A kit: one folder with bundle, packages and a start file, for a machine that no link reaches.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, MissingDependency, OutputExists
from ...files.staging import Staging
from ...files.storage import write_json
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...terminal.progress import Progress
from . import wheels
from .answers import DeviceError, Facts, Folder, Have, Stored, refused
from .fitness import NAMED, Platform, clock_note, require_fit, require_provider, require_room
from .ssh import PYTHONS, Link
from .wheels import Wheel

# What the packages take on disk, packed and unpacked.
ENVIRONMENT_DISK, GPU_ENVIRONMENT_DISK = 400 << 20, 1200 << 20
SCHEMA = "edgepress.kit/1"
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
START = {"Windows": "start.cmd"}
_SHELL = f"""#!/bin/sh
# Measures the bundle beside this file on this machine, without a network, and writes record.jsonl here.
cd "$(dirname "$0")" || exit 1
for python in {" ".join(PYTHONS)}; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    exec "$python" -I kit.py
  fi
done
echo "there is no Python 3.11 or newer here" >&2
exit 4
"""
_CMD = """@echo off\r
rem Measures the bundle beside this file on this machine, without a network, and writes record.jsonl here.\r
cd /d "%~dp0"\r
where py >nul 2>nul\r
if %errorlevel%==0 (py -3 -I kit.py) else (python -I kit.py)\r
"""


@dataclass(frozen=True)
class Prepared:
    """A device to which all was sent: its facts, and where the environment and the bundles lie there."""

    facts: Facts
    environment: str
    bundles: tuple[str, ...]


def prepare(link: Link, bundles: list[Bundle], progress: Progress, provider: str = "cpu") -> Prepared:
    """Check that the device can do the work, then send what it lacks to do it with ``provider``."""
    facts = link.ask({"do": "probe"}, Facts)
    require_fit(facts, link.name)
    require_provider(facts, link.name, provider)
    if note := clock_note(facts, link.name):
        progress.note(note)
    platform = Platform.of(facts)
    require_operators(bundles, platform, link.name)
    needed = wheels.environment(platform, provider)
    there = link.ask({"do": "folder", "kind": "environments", "key": wheels.key(needed)}, Folder).path
    missing = [_missing(link, bundle) for bundle in bundles]
    packages = ENVIRONMENT_DISK if provider == "cpu" else GPU_ENVIRONMENT_DISK
    require_room(
        facts,
        link.name,
        memory=max((bundle.disk_bytes for bundle in bundles), default=0),
        disk=sum(size for files in missing for _, _, size, _ in files) + (0 if there else packages),
    )
    environment = there or _send_environment(link, needed, progress)
    return Prepared(facts, environment, tuple(send_bundle(link, bundle, progress) for bundle in bundles))


def require_operators(bundles: list[Bundle], platform: Platform, name: str) -> None:
    """Raise InputError where a bundle has edgepress's own operators and nothing runs them there."""
    own = [bundle.name for bundle in bundles if bundle.own_operators]
    if own and not wheels.has_library(platform):
        raise InputError(
            f"{own[0]} has edgepress's own operators, and there is no library of them for {name}",
            why=f"{name} is {platform.system} on {platform.machine}",
            fix="name a folder with edgepress's wheel for it (make wheel): EDGEPRESS_WHEELS=FOLDER; "
            "or export the checkpoint with --for standard",
        )


Piece = tuple[str, str, int, int]  # name, hash, bytes that must be sent, offset


def _missing(link: Link, bundle: Bundle) -> list[Piece]:
    """The files of a bundle that are not there whole."""
    files = bundle_files(bundle)
    found = []
    for (name, sha256), (there, whole) in zip(files, _have(link, [one for _, one in files]), strict=True):
        size = (bundle.path / name).stat().st_size
        offset = min(there, size)
        found += [] if whole else [(name, sha256, size - offset, offset)]
    return found


def _have(link: Link, pieces: list[str]) -> list[tuple[int, bool]]:
    """Of each piece the bytes that are there, and whether they are all."""
    answer = link.ask({"do": "have", "pieces": pieces}, Have)
    if not len(answer.sizes) == len(answer.whole) == len(pieces):
        raise refused(link.name, "it answered for other pieces than it was asked for")
    return list(zip(answer.sizes, answer.whole, strict=True))


def bundle_files(bundle: Bundle) -> list[tuple[str, str]]:
    """Name and hash of every file of a bundle, its manifest among them."""
    listed = [(name, entry["sha256"]) for name, entry in sorted(bundle.manifest["files"].items())]
    return [*listed, (MANIFEST, bundle.manifest_sha256)]


def send_bundle(link: Link, bundle: Bundle, progress: Progress) -> str:
    """Send what is missing of ``bundle``; its folder on the device."""
    missing = _missing(link, bundle)
    total = sum(size for _, _, size, _ in missing)
    with progress.task(f"sending {bundle.name} to {link.name}", max(total, 1)) as task:
        for name, sha256, size, offset in missing:
            whole = {"do": "put", "sha256": sha256, "size": size + offset, "offset": offset}
            link.send(whole)
            link.send_file(bundle.path / name, offset, task.advance)
            _require_stored(link, name)
    files = [list(entry) for entry in bundle_files(bundle)]
    return _placed(link, "bundles", bundle.manifest_sha256, files)


def _send_environment(link: Link, needed: list[Wheel], progress: Progress) -> str:
    have = _have(link, [wheel.sha256 for wheel in needed])
    with progress.task(f"packages for {link.name}", len(needed)) as task:
        for wheel, (_, whole) in zip(needed, have, strict=True):
            if not whole and not _fetched_there(link, wheel):
                path = wheel.file()
                link.send({"do": "put", "sha256": wheel.sha256, "size": path.stat().st_size, "offset": 0})
                link.send_file(path, 0, lambda _: None)
                _require_stored(link, wheel.name)
            task.advance(detail=wheel.name)
    return _placed(link, "environments", wheels.key(needed), [[one.name, one.sha256] for one in needed])


def _fetched_there(link: Link, wheel: Wheel) -> bool:
    """Whether the device got it over its own network; only from an address without a password in it."""
    if not wheel.url.startswith("https://") or "@" in wheel.url:
        return False
    return link.ask({"do": "fetch", "sha256": wheel.sha256, "url": wheel.url}, Stored).stored


def _require_stored(link: Link, name: str) -> None:
    if not link.answer(Stored).stored:
        raise DeviceError(
            f"{name} arrived at {link.name} with other bytes than were sent",
            fix="run the same command again; where it happens again, its disk or memory is damaged",
        )


def _placed(link: Link, kind: str, key: str, files: list[list[str]]) -> str:
    path = link.ask({"do": "folder", "kind": kind, "key": key}, Folder).path
    return path or link.ask({"do": "place", "kind": kind, "key": key, "files": files}, Folder).path


def make_kit(bundle: Path, output: Path, name: str, plan: dict[str, Any], progress: Progress) -> list[str]:
    """Write the folder ``output`` for the platform ``name``; ``plan`` is what is measured.

    Returns:
        The versions of Python that it serves.
    """
    opened = Bundle.open(bundle)
    places = [Platform.named(name, version) for version in VERSIONS]
    require_operators([opened], places[0], name)
    if output.exists():
        raise OutputExists(f"{output} is already there", fix="choose another output, or delete it")
    needed = _wheels(places, progress)
    with Staging(output) as stage:
        _write(stage.result, opened, needed, name, plan)
        stage.publish()
    return list(needed)


def _wheels(places: list[Platform], progress: Progress) -> dict[str, list[wheels.Wheel]]:
    """By version of Python, those that there are."""
    found: dict[str, list[wheels.Wheel]] = {}
    failure: MissingDependency | None = None
    own = wheels.own_wheel(places[0])
    with progress.task("packages", len(places)) as task:
        for place in places:
            version = ".".join(map(str, place.python))
            try:
                found[version] = [*wheels.packages(place), own]
            except MissingDependency as error:
                failure = error
            task.advance(detail=version)
    if not found:
        raise failure or InputError("there are no versions of Python")
    return found


def _write(
    root: Path, bundle: Bundle, needed: dict[str, list[wheels.Wheel]], name: str, plan: dict[str, Any]
) -> None:
    (root / "wheels").mkdir(parents=True)
    (root / "bundle").mkdir()
    for file, _ in bundle_files(bundle):
        (root / "bundle" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / file, root / "bundle" / file)
    for wheel in {wheel.name: wheel for group in needed.values() for wheel in group}.values():
        shutil.copyfile(wheel.file(), root / "wheels" / wheel.name)
    shutil.copyfile(Path(__file__).with_name("kit_start.py"), root / "kit.py")
    system, machine = NAMED[name]
    start = root / START.get(system, "start.sh")
    start.write_text(_CMD if system == "Windows" else _SHELL, encoding="ascii", newline="")
    start.chmod(0o755)
    listed = {
        version: [{"name": wheel.name, "sha256": wheel.sha256} for wheel in group]
        for version, group in needed.items()
    }
    plan = {**plan, "manifest_sha256": bundle.manifest_sha256}
    content = {"schema": SCHEMA, "platform": name, "place": [system, machine], "wheels": listed, **plan}
    write_json(root / "kit.json", content)
