"""Memory before and after a measurement: files dropped from the page cache, and the peak of the process.

``posix_fadvise(DONTNEED)`` drops the clean pages of one file without root and without touching anything
else. It is only advice, so the result is checked: a read with ``RWF_NOWAIT`` answers from the cache or
not at all.

On Linux ``ru_maxrss`` survives ``exec`` and so begins at the size of whoever started the process;
``VmHWM`` belongs to the new address space and does not.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import psutil

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


def peak_rss(proc: Path = Path("/proc")) -> tuple[int, str]:
    """The peak resident bytes of the calling process since it began to run its own program, and the method
    that counted them. The path is for tests.
    """
    status = proc / "self/status"
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10, "VmHWM"
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset), "peak_wset"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10, "ru_maxrss"
