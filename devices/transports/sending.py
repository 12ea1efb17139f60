"""Brings a bundle and the environment that measures it to a device; what is there by its hash is not sent."""

from dataclasses import dataclass

from ...errors import InputError
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.directory import MANIFEST
from ...terminal.progress import Progress
from . import wheels
from .answers import DeviceError, Facts, Folder, Have, Stored, refused
from .fitness import Platform, clock_note, require_fit, require_provider, require_room
from .ssh import Link
from .wheels import Wheel

# What the packages take on disk, packed and unpacked.
ENVIRONMENT_DISK, GPU_ENVIRONMENT_DISK = 400 << 20, 1200 << 20


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
