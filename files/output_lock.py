"""The lock of an output: a file beside it, which one process at a time holds and removes at its end.

The file says that edgepress made it. One of that name that says anything else, a link, a directory or a pipe
is somebody's own: it is refused, and stays as it is. The system frees the lock of a process that was killed;
the file that it leaves is taken over.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError, OutputExists

MARK = b"edgepress lock\n"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # what opening a link, a directory, a socket gives

if sys.platform == "win32":
    import msvcrt
    import time

    def _locked(descriptor: int, wait: bool) -> bool:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # past the content, which others may then read
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except PermissionError:
                if not wait:
                    return False
                time.sleep(0.05)
else:
    import fcntl

    def _locked(descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True


class OutputLock:
    """The lock in the file ``path``; of two objects, in one process or in two, one holds it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; False where another holds it, unless that is to be waited for."""
        while True:
            descriptor = self._open()
            free = self._lock(descriptor, wait)
            if free and self._is_at_path(descriptor):
                self._descriptor = descriptor
                self._mark(descriptor)
                return True
            os.close(descriptor)
            if not free:
                return False
            # Who held it has removed the file in the meantime: the next one is opened.

    def release(self) -> None:
        """Give it back, and remove the file while nobody else can hold it."""
        if self._descriptor is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, _FLAGS, 0o666)
        except FileNotFoundError as error:
            raise InputError(
                f"cannot write in {self.path.parent}", why=str(error), fix="choose another output path"
            ) from None
        except OSError as error:
            if error.errno in _NO_FILE:
                raise self._foreign() from None
            raise
        found = os.fstat(descriptor)
        own = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1  # no other name of a file of somebody's
        if not own or os.read(descriptor, len(MARK) + 1) not in (b"", MARK):
            os.close(descriptor)
            raise self._foreign()
        return descriptor

    def _foreign(self) -> OutputExists:
        return OutputExists(
            f"{self.path} is not a lock of edgepress, and stays as it is",
            why="a run locks its output by a file of this name",
            fix="move it away, or choose another output",
        )

    def _lock(self, descriptor: int, wait: bool) -> bool:
        try:
            return _locked(descriptor, wait)
        except OSError as error:
            os.close(descriptor)
            with suppress(OSError):
                self.path.unlink()
            raise InputError(
                f"cannot lock {self.path}",
                why=f"its file system has no locks: {error}",
                fix="choose an output on another disk",
            ) from None

    def _mark(self, descriptor: int) -> None:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, MARK)
        except OSError:
            self.release()
            raise

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self.path))
        except FileNotFoundError:
            return False


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock in the file ``path`` in the block; who has it is waited for. Raises as
    :meth:`OutputLock.acquire`.
    """
    lock = OutputLock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
