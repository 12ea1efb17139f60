"""Output directories that appear whole or not at all, and take nothing of anybody else's with them.

A result is built in a staging directory beside its target and renamed into place as the last act, once the
disk has all of it: a power cut leaves the old output, the new one, or what the next run puts back. The
staging name is a function of the target's, so that the same command finds what a killed run left: it resumes
it, or sweeps it away. A file in the staging directory says that edgepress made it; without that, a directory
of this name is somebody's own.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import EdgepressError, InputError, OutputBusy, OutputExists, RefusedByPolicy
from .closed_folder import close_folder
from .disk import disk_error, disk_full_is_typed, sync_directory, sync_tree
from .output_lock import OutputLock
from .output_paths import MANIFESTS, OldOutput, refusal
from .storage import named_path
from .third_party_errors import memory_shortage

# The mark of a staging directory, by its state: work goes on in it, or its result is being published.
MARK, PUBLISHING = "edgepress-staging", "edgepress-publishing"


class Staging:
    """The staging directory of one output, held under a lock: ``with Staging(out) as stage: …
    stage.publish()``. The caller makes the result in ``stage.result``, a directory that is not there yet, and
    may work in others in ``stage.directory``.

    ``keep`` says of the staging directory, after a failure, whether a resumed run would find something in it;
    without that it is removed. ``wait`` is for what any process may make for all: another one that is at it
    is waited for.
    """

    def __init__(
        self,
        target: Path,
        *,
        overwrite: bool = False,
        keep: Callable[[Path], bool] | None = None,
        wait: bool = False,
    ) -> None:
        self.target = named_path(target).absolute()
        if self.target.name in ("", ".."):
            raise InputError(f"{target} cannot be an output", fix="name a directory that can be made")
        self.overwrite, self.keep, self.wait = overwrite, keep, wait
        self.directory = self.target.with_name(f".{self.target.name}.partial")
        self.result = self.directory / "result"
        self._replaced = self.directory / "replaced"
        self._lock = OutputLock(self.target.with_name(f".{self.target.name}.lock"))
        self._old: OldOutput | None = None
        self._published = False

    def __enter__(self) -> Staging:
        with disk_full_is_typed(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire(wait=self.wait):
                raise OutputBusy(
                    f"another edgepress process is writing {self.target}",
                    fix="wait for it to end, or choose another output",
                )
            try:
                self._refuse_unless_ours()
                self._recover()
                if self.keep is None:
                    self._sweep()
                self._old = self._replaceable()
                self._begin()
            except BaseException:
                with suppress(OSError):
                    self.directory.rmdir()  # where it is empty
                self._lock.release()
                raise
        return self

    def _refuse_unless_ours(self) -> None:
        try:
            status = self.directory.lstat()
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            parent = self.directory.parent.stat()
            shared = parent.st_mode & stat.S_ISVTX  # /tmp: anybody may make one
            # On a disk of another machine all files may be of one user.
            own = not hasattr(os, "geteuid") or status.st_uid in (
                os.geteuid(),
                *(() if shared else (parent.st_uid,)),
            )
            marked = any((self.directory / mark).is_file() for mark in (MARK, PUBLISHING))
            if own and (marked or not any(self.directory.iterdir())):
                return self._refuse_ways_out()
        raise OutputExists(
            f"{self.directory} is not a staging directory of edgepress, and stays as it is",
            why="a run works in a directory of this name until its output is whole",
            fix="move it away, or choose another output; what edgepress 0.1.0 left there can be deleted",
        )

    def _refuse_ways_out(self) -> None:
        planted = close_folder(self.directory)
        if planted is not None:
            raise RefusedByPolicy(
                f"{planted} leads out of a staging directory of edgepress, which never makes such a thing",
                why="a run that goes on there would write to what it leads to; nothing was touched",
                fix=f"find out who put it there, and delete {self.directory}",
            )

    def _recover(self) -> None:
        """End what a kill, or a failure, ended between the renames of a publication."""
        if not (self.directory / PUBLISHING).exists():
            return
        if not self.result.exists():  # it is published
            self._sweep()
        elif self._replaced.exists():
            if os.path.lexists(self.target):
                raise OutputExists(
                    f"{self._replaced} is the output that was to be replaced, and stays as it is",
                    why=f"a run was stopped before it could put it back, and {self.target} was made since",
                    fix="move one of them away",
                )
            self._replaced.rename(self.target)

    def _replaceable(self) -> OldOutput | None:
        """What is at the target, unless that is nothing or an empty directory."""
        if not os.path.lexists(self.target):
            return None
        if self.target.is_symlink() or not self.target.is_dir():
            raise OutputExists(f"{self.target} exists and is not a directory", fix="choose another output")
        if self.target.is_mount():
            raise InputError(
                f"{self.target} is a mount point, which no output can replace", fix="name a directory in it"
            )
        if not any(self.target.iterdir()):
            return None
        if not self.overwrite:
            raise self._exists()
        if not os.access(self.target, os.W_OK):
            raise InputError(f"{self.target} is read-only", fix="choose another output")
        return OldOutput(self.target)

    def _exists(self) -> OutputExists:
        """The refusal of a target that is there; only what edgepress wrote can be replaced."""
        if any(os.path.lexists(self.target / name) for name in MANIFESTS):
            return OutputExists(
                f"{self.target} already exists", fix="pass --overwrite, or choose another output"
            )
        shown = sorted(path.name for path in self.target.iterdir())
        return OutputExists(
            f"{self.target} already exists",
            why=f"it holds {', '.join(shown[:4])}{', …' if shown[4:] else ''}, which edgepress did not write",
            fix="choose another output; --overwrite replaces only what edgepress wrote",
        )

    def _begin(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if (self.directory / PUBLISHING).exists():
            (self.directory / PUBLISHING).rename(self.directory / MARK)
        else:
            (self.directory / MARK).touch()

    def _sweep(self) -> None:
        """Remove the staging directory, the mark last: what a kill leaves of it is still known as ours."""
        with suppress(OSError):
            found = sorted(self.directory.iterdir(), key=lambda path: path.name in (MARK, PUBLISHING))
            for path in found:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            self.directory.rmdir()

    def restart(self) -> None:
        """Drop what an earlier run left and begin with an empty staging directory."""
        self._sweep()
        self._begin()

    def publish(self) -> None:
        """Rename the result onto the target. The caller has written its manifest last. What else the staging
        directory holds is removed.
        """
        with disk_full_is_typed(self.target):
            sync_tree(self.result)
            (self.directory / MARK).rename(self.directory / PUBLISHING)
            sync_directory(self.directory)
            if os.path.lexists(self.target):
                self._move_away()
            self._rename_durably()
        self._published = True
        self._sweep()

    def _rename_durably(self) -> None:
        """Rename the result, and take it back where the disk does not take its new name."""
        self.result.rename(self.target)
        try:
            sync_directory(self.target.parent)
        except OSError:
            self.target.rename(self.result)
            raise

    def _move_away(self) -> None:
        if self.target.is_symlink() or not self.target.is_dir():
            raise OutputExists(f"{self.target} exists and is not a directory", fix="choose another output")
        if self._old is None:
            found = sorted(path.name for path in self.target.iterdir())
        else:
            self.target.rename(self._replaced)
            found = self._old.changes(self._replaced)
        if found:  # on the way out the old output is put back
            raise refusal(self.target, found)

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        try:
            if not self._published:
                with disk_full_is_typed(self.target):
                    self._recover()
                    if self.keep is None or not self.keep(self.directory):
                        self._sweep()
        finally:
            self._lock.release()
        untyped = isinstance(error, Exception) and not isinstance(error, EdgepressError)
        typed = (disk_error(self.target, error) or memory_shortage(error)) if untyped and error else None
        if typed is not None:
            raise typed from error
