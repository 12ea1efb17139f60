"""Directories by the hashes of their files: as a manifest lists them, and held against it."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .storage import sha256_file

# The signature that `edgepress sign` puts beside a manifest, which cannot list it.
SIGNATURE = "model.sig"


def hash_tree(
    root: Path, *, skip: frozenset[str] = frozenset(), tick: Callable[[float], None] | None = None
) -> dict[str, dict[str, Any]]:
    """``{relative name: {"sha256", "bytes"}}`` for every regular file below ``root``, except names in
    ``skip``; ``tick`` receives the bytes that are read.
    """
    names = sorted(name for name, kind in _entries(root) if kind == _FILE and name not in skip)
    return {
        name: {"sha256": sha256_file(root / name, tick), "bytes": (root / name).stat().st_size}
        for name in names
    }


_FILE = "a file"
_KINDS = (
    (stat.S_ISREG, _FILE),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)


def _entries(root: Path) -> Iterator[tuple[str, str]]:
    """Relative name and kind of everything below ``root`` but directories that hold something; links are not
    followed, and nothing is opened.
    """
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                modes = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in entries]
        except OSError:
            yield folder or ".", "a directory that cannot be read"
            continue
        if folder and not modes:
            yield folder, "an empty directory"
        for name, mode in modes:
            inner = f"{folder}/{name}" if folder else name
            if stat.S_ISDIR(mode):
                pending.append(inner)
            else:
                yield inner, next((kind for test, kind in _KINDS if test(mode)), "a device")


def check_tree(
    root: Path,
    files: Mapping[str, Mapping[str, Any]],
    *,
    skip: frozenset[str],
    sizes_only: frozenset[str] = frozenset(),
) -> list[str]:
    """Differences between a directory and its manifest's hashes, as sentences; empty when all is well.

    Only regular files that the manifest lists are opened, and of ``sizes_only`` the bytes are counted.
    """
    found = dict(_entries(root))
    problems: list[str] = []
    for name, expected in sorted(files.items()):
        kind = found.get(name)
        if kind is None:
            twin = next((other for other in found if other.casefold() == name.casefold()), None)
            problems.append(f"{name} is missing" + (f", though {shown(twin)} is there" if twin else ""))
        elif kind == _FILE:
            problems += _file_problems(root / name, name, expected, name in sizes_only)
    for name in sorted(found.keys() - skip):
        if found[name] != _FILE:
            problems.append(f"{shown(name)} is {found[name]}")
        elif name not in files:
            problems.append(f"{shown(name)} is not in the manifest")
    return problems


def _file_problems(path: Path, name: str, expected: Mapping[str, Any], size_only: bool) -> list[str]:
    try:
        if (size := path.stat().st_size) != expected["bytes"]:
            return [f"{name} has {size} bytes, the manifest says {expected['bytes']}"]
        same = size_only or sha256_file(path) == expected["sha256"]
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}"]
    return [] if same else [f"{name} does not match its SHA-256"]


def shown(name: str) -> str:
    """A file's name as a message has it: one that no terminal should print is quoted."""
    return name if name.isprintable() else ascii(name)
