"""The stock of weights that kernels are timed with: a file as large as several last-level caches, and the
working sets that are taken from it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...disk import disk_full_is_typed
from ..probe import read_memory
from ..processor import read_processor
from .chain import LAST_BYTE, LEAST_BYTE
from .timing import STOCK

# Weights that come from memory would fill so many last-level caches. With four, each of two cores that have
# such a cache of their own still finds a third of its half there.
_CACHES, _LEAST_STOCK, _MOST_STOCK = 12, 64 << 20, 1 << 30


def stock_bytes() -> int:
    """How large the file is on this machine."""
    wanted = min(_CACHES * (read_processor().last_level_cache_bytes or 0), _MOST_STOCK)
    return max(_LEAST_STOCK, min(wanted, read_memory().available // 4 >> 20 << 20))


def spans(stock: int) -> list[int]:
    """Working sets, closer where a model leaves the last-level cache: most are larger, and not by much."""
    cache = read_processor().last_level_cache_bytes or 32 << 20
    around = {int(share * cache) >> 20 << 20 for share in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6)}
    return sorted({one for one in around if 4 << 20 <= one < stock} | {stock})


@contextmanager
def written_stock(size: int) -> Iterator[Path]:
    """A folder with the file that weights are read from."""
    with tempfile.TemporaryDirectory(prefix="edgepress-kernels-") as name:
        folder = Path(name)
        with disk_full_is_typed(folder), (folder / STOCK).open("wb") as stream:
            block = np.random.default_rng(0).integers(LEAST_BYTE, LAST_BYTE, 1 << 20, np.uint8)
            for index in range(size >> 20):
                stream.write(np.roll(block, 4099 * index).tobytes())
        yield folder


def disk_rate(folder: Path, limit_s: float) -> float | None:
    """Bytes per second from the disk, of as much as is read in ``limit_s``; None where its cache cannot be
    dropped.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    with (folder / STOCK).open("rb", buffering=0) as stream:
        try:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return None
        part, read, start = bytearray(1 << 20), 0, time.perf_counter()
        while time.perf_counter() - start < limit_s and (count := stream.readinto(part)):
            read += count
    return read / (time.perf_counter() - start)
