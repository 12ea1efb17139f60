"""The stock of weights that kernels are timed with: a file that memory must serve, and the working sets that
are taken from it.

How large that is, is measured, since what a machine says of its caches need not be what a process gets of
them: the 480 MiB of a server are shared by all of its virtual machines. The rate of reading is looked at over
working sets of up to twelve last-level caches or 1 GiB; the stock is twice the smallest from which on no rate
is more than a tenth above that of the largest, with any number of threads.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...files.disk import disk_full_is_typed
from ..probe import read_memory
from ..processor import read_processor
from .chain import LAST_BYTE, LEAST_BYTE
from .table import Reading
from .timing import STOCK

# Weights that come from memory would fill so many last-level caches. With four, each of two cores that have
# such a cache of its own still finds a third of its half there.
_CACHES, _LEAST_STOCK, _MOST_STOCK = 12, 64 << 20, 1 << 30
# Working sets below the share of a server's cache that a process gets of it, which no number says.
_SMALL = tuple(size << 20 for size in (8, 32, 48, 64, 80, 96))
# Where a third of the bytes came from a cache twice as fast, the rate would be a fifth higher.
_ALIKE = 1.1
_PART = 1 << 20


def most_stock() -> int:
    """How large the file is at the most on this machine, in bytes."""
    wanted = min(_CACHES * (read_processor().last_level_cache_bytes or 0), _MOST_STOCK)
    return max(_LEAST_STOCK, min(wanted, read_memory().available // 4 >> 20 << 20))


def spans(stock: int) -> list[int]:
    """Working sets up to ``stock`` bytes, closer where a model leaves the last-level cache: most are larger,
    and not by much.
    """
    cache = read_processor().last_level_cache_bytes or 32 << 20
    around = {int(share * cache) >> 20 << 20 for share in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6)}
    small = {one for one in _SMALL if one <= 32 << 20 or one < min(around)}
    return sorted({one for one in around | small if 4 << 20 <= one <= 0.9 * stock} | {stock})


def enough_stock(readings: Sequence[Reading]) -> int:
    """How many bytes memory must serve, by the rates that were read over working sets of different sizes."""
    sizes = sorted({one.working_set for one in readings})
    largest = {one.threads: one.bytes_per_second for one in readings if one.working_set == sizes[-1]}
    cached = [
        one.working_set
        for one in readings
        if one.bytes_per_second > _ALIKE * largest.get(one.threads, one.bytes_per_second)
    ]
    first = min((size for size in sizes if size > max(cached, default=0)), default=sizes[-1])
    return min(max(2 * first, _LEAST_STOCK), max(sizes[-1], _LEAST_STOCK))


@contextmanager
def written_stock(size: int) -> Iterator[Path]:
    """A folder with the file that weights are read from."""
    with tempfile.TemporaryDirectory(prefix="edgepress-kernels-") as name:
        folder = Path(name)
        with disk_full_is_typed(folder), (folder / STOCK).open("wb") as stream:
            block = np.random.default_rng(0).integers(LEAST_BYTE, LAST_BYTE, _PART, np.uint8).tobytes()
            twice = memoryview(block + block)
            for index in range(size // _PART):
                start = 4099 * index % _PART  # no two parts are alike
                stream.write(twice[start : start + _PART])
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
