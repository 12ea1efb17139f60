"""Paths that a user names for output, held against what is there before any work: the inputs, and files that
are not edgepress's to replace.

What an earlier run left in an output, for ``--overwrite`` to replace: the manifest, and the files that it
names as they were written. Anything else in there is somebody's own.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, OutputExists
from .hashed_tree import SIGNATURE
from .storage import read_json, require_plain, sha256_file

MANIFESTS = ("manifest.json", "edgepress.json", "fit.json")
_SHOWN = 8


def refuse_nesting(
    output: Path, inputs: Iterable[str | Path | None], *, kept: Iterable[str | Path | None] = ()
) -> None:
    """Raise InputError where the directory ``output`` is one of ``inputs``, lies inside one, or holds one;
    links are followed. Names that are no paths here (of a demo model, of a packaged recipe) pass.

    Args:
        kept: directories that a run adds to, and that only must not be in the output.
    """
    for path, read in [*((one, True) for one in inputs), *((one, False) for one in kept)]:
        if path is None:
            continue
        found = Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises where there is no such user
        if _inside(found, output):
            lies = "is" if _inside(output, found) else "holds"
            raise _nested(f"the output {output} {lies} the input {path}", "an output is replaced as a whole")
        if read and _inside(output, found):
            raise _nested(f"the output {output} lies inside the input {path}", "an input stays as it is")


def _nested(what: str, why: str) -> InputError:
    return InputError(what, why=why, fix="choose another output")


def _inside(path: Path, directory: Path) -> bool:
    """Whether ``path``, which need not exist, is ``directory`` or lies in it."""
    if not directory.exists():
        return False
    real = Path(os.path.realpath(path))
    return any(one.exists() and one.samefile(directory) for one in (real, *real.parents))


def refuse_file(output: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check that the file ``output`` may be written."""
    if output.is_symlink() or (output.exists() and not output.is_file()):
        kind = "a link" if output.is_symlink() else "a directory" if output.is_dir() else "no regular file"
        raise OutputExists(f"{output} is {kind}, and stays as it is", fix="name a file that can be made")
    if output.exists() and not overwrite:
        raise OutputExists(f"{output} already exists", fix="pass --overwrite, or choose another output")
    for path in inputs:
        if _inside(output, path):
            raise _nested(f"the output {output} is, or lies inside, the input {path}", "")


class OldOutput:
    """The output in the directory ``path``. Every file in it is read for its hash."""

    def __init__(self, path: Path) -> None:
        self._files = _manifest(path)
        self._states = dict(self._walk(path))  # before the hashes: who writes from now on is noticed
        found = self._strangers() or self._edited(path)
        if found:
            raise refusal(path, found)

    def changes(self, path: Path) -> list[str]:
        """What was added or changed since, now that the directory is at ``path``."""
        now = dict(self._walk(path))
        return [name for name, state in now.items() if state is None or self._states.get(name) != state]

    def _walk(self, path: Path, below: str = "") -> Iterator[tuple[str, tuple[int, ...] | None]]:
        """Each name with what tells whether it was written to; None for what no manifest accounts for. Of a
        directory in which nothing is accounted for its own name stands for all.
        """
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            name, status = below + entry.name, entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and any(known.startswith(f"{name}/") for known in self._files):
                yield from self._walk(path / entry.name, f"{name}/")
            elif stat.S_ISREG(status.st_mode) and name in self._files:
                yield name, (status.st_ino, status.st_size, status.st_mtime_ns)
            else:
                yield name, None

    def _strangers(self) -> list[str]:
        return [name for name, state in self._states.items() if state is None]

    def _edited(self, path: Path) -> list[str]:
        found = []
        for name in self._states:
            said = self._files[name]
            if said is not None and sha256_file(path / name) != said.get("sha256"):
                found.append(f"{name} (changed since it was written)")
        return found


def refusal(path: Path, found: list[str]) -> OutputExists:
    """The error about ``path``, which holds what is ``found`` there."""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return OutputExists(
        f"{path} holds files that edgepress did not write, or that were changed since",
        why=", ".join(map(repr, found[:_SHOWN])) + more,
        fix="move them away, or choose another output",
    )


def _manifest(path: Path) -> Mapping[str, Mapping[str, Any] | None]:
    """By name what the manifest in ``path`` says of each file, and None for itself and the signature over it,
    which it cannot list; empty where edgepress wrote none.
    """
    found = {name: files for name in MANIFESTS if (files := _files(path, name)) is not None}
    if not found:
        return {}
    # An output may have been made of another: it names that one's manifest among its files.
    own = max(found, key=lambda name: len(found.keys() & found[name]))
    return {**found[own], own: None, SIGNATURE: None}


def _files(path: Path, manifest: str) -> dict[str, Mapping[str, Any]] | None:
    file = path / manifest
    if file.is_symlink() or not file.is_file():
        return None
    try:
        document = read_json(file)
    except InputError:
        return None
    if not isinstance(document, dict) or not str(document.get("schema")).startswith("edgepress."):
        return None
    listed = document.get("files")
    if not isinstance(listed, dict) or not all(isinstance(said, dict) for said in listed.values()):
        return None
    for name in listed:
        require_plain(path, name)
    return {PurePosixPath(name).as_posix(): said for name, said in listed.items()}
