"""Files on disk: hashes, contained names, and directories that appear whole or not at all.

A result is built in a staging directory beside its target and renamed into place as the last act. The staging
name is a function of the target's, so that the same command finds what a killed run left: it resumes it, or
sweeps it away.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import InputError, OutOfResource, OutputExists, RefusedByPolicy

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST),  # EEXIST: a file where a directory should be made
)
# A directory with one of these is a result of ours, which --overwrite may replace.
MANIFESTS = ("edgepress.json", "manifest.json")
SCHEMA = b'"schema": "edgepress.'


def cache_directory() -> Path:
    """Where made models are kept: ``EDGEPRESS_CACHE``, else the platform's cache directory."""
    chosen = os.environ.get("EDGEPRESS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgepress"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "edgepress" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgepress"


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values have equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def contained(root: Path, name: str) -> Path:
    """``root / name`` for a plain relative name; refuses absolute paths, ``..``, and links that leave
    ``root``.

    Raises:
        RefusedByPolicy: the name would read or write outside ``root``.
    """
    candidate = Path(name)
    if candidate.is_absolute() or ".." in candidate.parts or "\x00" in name or not candidate.parts:
        raise RefusedByPolicy(f"file name {name!r} points outside its directory {root}")
    path = root / candidate
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # too long, not encodable, a loop of links
        raise RefusedByPolicy(f"file name {name!r} is none that {root} can hold", why=str(error)) from None
    if not inside:
        raise RefusedByPolicy(f"file {name!r} is a link that leaves its directory {root}")
    return path


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, even across a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Atomically write indented JSON with a stable key order."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def read_json(path: Path, *, limit: int = 64 << 20) -> Any:
    """Parse a JSON file of at most ``limit`` bytes.

    Raises:
        InputError: missing, unreadable, too large, not UTF-8 or not JSON; names the file.
    """
    try:
        if path.stat().st_size > limit:
            raise InputError(f"{path} is larger than {limit} bytes, too large for a JSON file")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"missing file {path}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}", why=str(error)) from None


def hash_tree(root: Path, *, skip: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    """``{relative name: {"sha256", "bytes"}}`` for every regular file below ``root``, except names in
    ``skip``.
    """
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in skip:
            files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    return files


def check_tree(root: Path, files: Mapping[str, Mapping[str, Any]], *, skip: frozenset[str]) -> list[str]:
    """Differences between a directory and its manifest's hashes, as sentences; empty when all is well."""
    problems: list[str] = []
    for name, expected in sorted(files.items()):
        path = contained(root, name)
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(f"{name} has {path.stat().st_size} bytes, the manifest says {expected['bytes']}")
        elif sha256_file(path) != expected["sha256"]:
            problems.append(f"{name} does not match its SHA-256")
    present = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() or p.is_symlink()}
    problems += [f"{name} is not in the manifest" for name in sorted(present - set(files) - skip)]
    return problems


def require_disk(path: Path, needed: int) -> None:
    """Raise :class:`OutOfResource` when the file system of ``path`` has fewer than ``needed`` bytes free."""
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OutOfResource(
            f"{path} needs {needed / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free",
            fix="free some space or choose an output on another disk",
        )


@contextmanager
def disk_full_is_typed(path: Path) -> Iterator[None]:
    """Turn what the file system says to any write below into typed errors that name ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutOfResource(
                f"the disk is full while writing {path}",
                why=str(error),
                fix="free some space and run the same command again: finished work is kept",
            ) from error
        if error.errno in UNWRITABLE:
            raise InputError(
                f"cannot write {path}", why=str(error), fix="choose another output path"
            ) from error
        raise


class Staging:
    """The staging directory of one output, held under a lock: ``with Staging(out) as stage: …
    stage.publish()``.

    ``keep`` leaves the staging directory after a failure or kill, for a resume; otherwise it is removed.

    Raises:
        OutputExists: the target exists and ``overwrite`` is false, or it holds what edgepress did not write.
        InputError: another process holds the lock, or the target cannot be written.
        OutOfResource: the disk is full.
    """

    def __init__(self, target: Path, *, overwrite: bool = False, keep: bool = False) -> None:
        self.target = target.absolute()
        if self.target.name in ("", ".."):
            raise InputError(f"{target} cannot be an output", fix="name a directory that can be made")
        self.overwrite, self.keep = overwrite, keep
        self.directory = self.target.with_name(f".{self.target.name}.partial")
        self._backup = self.target.with_name(f".{self.target.name}.replaced")
        self._lock = FileLock(self.target.with_name(f".{self.target.name}.lock"))
        self._published = False

    def __enter__(self) -> Staging:
        with disk_full_is_typed(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            try:
                self._recover()
                self._drop_if_empty()  # so a kill right after publication leaves it
                if self.target.exists() or self.target.is_symlink():
                    self._refuse_unless_overwrite()
                if not self.keep:
                    shutil.rmtree(self.directory, ignore_errors=True)
                self.directory.mkdir(mode=0o755, exist_ok=True)
            except BaseException:
                self._release()
                raise
        return self

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"another edgepress process is writing {self.target}",
                fix="wait for it to end, or choose another output",
            ) from None

    def _release(self) -> None:
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _recover(self) -> None:
        # What ends a run between the two renames of an overwrite leaves only the backup: put it back.
        if self._backup.exists():
            if self.target.exists():
                shutil.rmtree(self._backup)
            else:
                self._backup.rename(self.target)

    def _drop_if_empty(self) -> None:
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def _refuse_unless_overwrite(self) -> None:
        if self.target.is_symlink() or not self.target.is_dir():
            raise OutputExists(f"{self.target} exists and is not a directory", fix="choose another output")
        if not self.overwrite and any(self.target.iterdir()):
            # The target is whole, so a staging directory beside it is what a kill after publication left.
            shutil.rmtree(self.directory, ignore_errors=True)
            raise OutputExists(
                f"{self.target} already exists", fix="pass --overwrite, or choose another output"
            )
        if any(self.target.iterdir()) and not self._is_a_result():
            raise OutputExists(
                f"{self.target} holds files that edgepress did not write",
                fix="choose another output, or remove them yourself",
            )

    def _is_a_result(self) -> bool:
        manifests = (self.target / name for name in MANIFESTS)
        return any(path.is_file() and SCHEMA in path.read_bytes() for path in manifests)

    def restart(self) -> None:
        """Drop what an earlier run left and begin with an empty staging directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o755)

    def publish(self, part: str | None = None) -> None:
        """Rename the staging directory, or the directory ``part`` in it, onto the target.

        The caller has written the manifest last. What else the staging directory holds is removed.
        """
        source = self.directory if part is None else self.directory / part
        with disk_full_is_typed(self.target):
            if self.target.exists():
                self.target.rename(self._backup)
            source.rename(self.target)
            shutil.rmtree(self._backup, ignore_errors=True)
            shutil.rmtree(self.directory, ignore_errors=True)
        self._published = True

    def __exit__(self, *_: object) -> None:
        try:
            if not self._published:
                self._recover()
                self._drop_if_empty()
                if not self.keep:
                    shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            self._release()
