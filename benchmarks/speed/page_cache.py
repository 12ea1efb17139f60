"""Cold loads: drop a bundle's files from the page cache, and prove that they are gone.

``posix_fadvise(DONTNEED)`` drops the clean pages of one file without root and without touching anything
else. It is only advice, so the result is checked: a read with ``RWF_NOWAIT`` answers from the cache or
not at all.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_PROBES = 16
# A probe may start a read-ahead of its surroundings, so the next one keeps its distance.
_APART = 1 << 20


def drop_from_cache(paths: list[Path]) -> bool:
    """Drop ``paths`` from the page cache; True only when every probe shows that the bytes must come from
    the disk.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    # Every file is dropped, also after one that stayed.
    dropped = [_drop(path) for path in paths]
    return all(dropped)


def _drop(path: Path) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(handle).st_size
        probes = range(0, size, max(size // _PROBES, _APART))
        return not any(_is_cached(handle, offset) for offset in probes)
    except OSError:
        # File systems without advice or without non-blocking reads: cold cannot be claimed.
        return False
    finally:
        os.close(handle)


def _is_cached(handle: int, offset: int) -> bool:
    try:
        return os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise
