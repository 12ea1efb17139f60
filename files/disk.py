"""The disk that is written to: the room on it, and what the file system says as typed errors.

Files and directories that the disk has, and not only the system's memory: what is there after a power cut.

A rename may reach the disk before the bytes of what is renamed. Who publishes a result by a rename waits for
its files and directories first, and afterwards for the directory that holds the new name.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EdgepressError, InputError, OutOfResource
from .storage import cache_directory, keep_from_others

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOTEMPTY),
    errno.EEXIST,  # a file where a directory should be made
)
# What nothing but a disk that no longer takes writes can be the cause of, in whatever work it comes up.
_FAILED = (*FULL, errno.EIO, errno.EROFS, errno.EINTR)
# Files that are waited for side by side. A journal takes those that come together in one transaction: 300
# small files one after the other took 1.4 s on ext4, and 0.1 s so.
_AT_ONCE = 16
# Of a directory that cannot be waited for: its file system does not know how, or it may not be read.
_NOT_OF_DIRECTORIES = (errno.EINVAL, errno.EBADF, errno.EACCES)


def free_disk(path: Path) -> int:
    """Bytes that are free on the file system of ``path``, which need not be there yet."""
    import shutil  # here alone: with the compressors that it knows it costs a start two milliseconds

    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def require_disk(path: Path, needed: int) -> None:
    """Raise :class:`OutOfResource` when the file system of ``path`` has fewer than ``needed`` bytes free."""
    free = free_disk(path)
    if free < needed:
        raise OutOfResource(
            f"{path} needs {disk_size(needed)} of disk, {disk_size(free)} are free",
            fix="free some space or choose an output on another disk",
        )


def disk_size(size: float) -> str:
    """``4 kB``, ``21 MB``, ``0.53 GB``, ``26 GB``."""
    if size < 1e8:
        return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.2f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def require_writable(path: Path) -> None:
    """Raise InputError, before any work, where the file ``path`` cannot be written or made."""
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    if place == path and not place.is_dir() and os.access(place, os.W_OK):
        return
    what = "is no directory" if place != path and not place.is_dir() else "may not be written"
    raise InputError(f"cannot write {path}", why=f"{place} {what}", fix="choose another output path")


def system_error(error: BaseException | None) -> int | None:
    """The errno of an OSError, or the one that native code put into its words: ``… (os error 28)``."""
    if isinstance(error, OSError):
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said.group(1)) if said else None


def disk_error(path: Path, error: BaseException | None) -> EdgepressError | None:
    """The typed error for an ``error`` by which work that writes ``path`` ended, where that was a full disk,
    one that fails, or one that is read-only; None for any other.
    """
    number = system_error(error)
    if number not in _FAILED:
        return None
    again = "free some space and run the same command again"
    if number in FULL:
        return OutOfResource(f"the disk is full while writing {path}", why=str(error), fix=again)
    if number == errno.EINTR:  # of a network's file system: Python asks again only where that is safe
        again = "run the same command again"
        return OutOfResource(f"the system was interrupted while writing {path}", why=str(error), fix=again)
    if number == errno.EIO:
        check = "check the disk and the system's log, then run the same command again"
        return OutOfResource(f"the disk fails while writing {path}", why=str(error), fix=check)
    return _unwritable(path, error)


def _unwritable(path: Path, error: BaseException | None) -> InputError:
    fix = "choose another output path"
    if path.is_relative_to(cache_directory()):
        fix = "set EDGEPRESS_CACHE to a directory that you may write"
    return InputError(f"cannot write {path}", why=str(error), fix=fix)


def make_folder(folder: Path) -> None:
    """Make a directory with those above it; raises InputError where none can be (``/proc/x``)."""
    try:
        with disk_full_is_typed(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise _unwritable(folder, error) from None


@contextmanager
def disk_full_is_typed(path: Path) -> Iterator[None]:
    """Turn what the file system says to any write below into typed errors that name ``path``."""
    try:
        yield
    except OSError as error:
        typed = disk_error(path, error)
        if typed is None and error.errno in UNWRITABLE:
            typed = _unwritable(path, error)
        if typed is not None:
            raise typed from error
        raise


def sync_tree(root: Path) -> None:
    """Wait until the disk has every regular file and every directory at and below ``root``, which nobody but
    their owner may change from then on; links are not followed. Raises OSError where the disk fails or is
    full.
    """
    from concurrent.futures import ThreadPoolExecutor  # here alone: it costs a start some milliseconds

    files, directories = list[Path](), [root]
    for folder, names, others in os.walk(root):
        directories += [path for name in names if not (path := Path(folder, name)).is_symlink()]
        files += [path for name in others if (path := Path(folder, name)).is_file() and not path.is_symlink()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_sync, files))
        list(pool.map(sync_directory, directories))


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in the directory ``path``, where that can be waited for."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _NOT_OF_DIRECTORIES:
            raise


def _sync(path: Path) -> None:
    if sys.platform == "win32":  # waits only for who may write, and for no directory
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        keep_from_others(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
