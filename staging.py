"""Output directories that appear whole or not at all.

A result is built in a staging directory beside its target and renamed into place as the last act. The staging
name is a function of the target's, so that the same command finds what a killed run left: it resumes it, or
sweeps it away.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import EdgepressError, InputError, OutputBusy, OutputExists
from .storage import FULL, disk_full_is_typed, disk_is_full, system_error

# A directory with one of these is a result of ours, which --overwrite may replace.
MANIFESTS = ("edgepress.json", "manifest.json")
SCHEMA = b'"schema": "edgepress.'


class Staging:
    """The staging directory of one output, held under a lock: ``with Staging(out) as stage: …
    stage.publish()``.

    ``keep`` leaves the staging directory after a failure or kill, for a resume; otherwise it is removed.
    ``wait`` is for what any process may make for all: another one that is at it is waited for.

    Raises:
        OutputExists: the target exists and ``overwrite`` is false, or it holds what edgepress did not write.
        OutputBusy: another process holds the lock, and it is not to be waited for.
        InputError: the target cannot be written.
        OutOfResource: the disk is full, now or during any work below.
    """

    def __init__(
        self, target: Path, *, overwrite: bool = False, keep: bool = False, wait: bool = False
    ) -> None:
        self.target = target.absolute()
        if self.target.name in ("", ".."):
            raise InputError(f"{target} cannot be an output", fix="name a directory that can be made")
        self.overwrite, self.keep, self.wait = overwrite, keep, wait
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
            self._lock.acquire(timeout=-1 if self.wait else 0)
        except Timeout:
            raise OutputBusy(
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

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        try:
            if not self._published:
                self._recover()
                self._drop_if_empty()
                if not self.keep:
                    shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            self._release()
        untyped = isinstance(error, Exception) and not isinstance(error, EdgepressError)
        if untyped and system_error(error) in FULL:
            raise disk_is_full(self.target, error) from error
