"""Freed tensors go back to the system at once, so that the peak of memory is what is in use.

The C library of Linux raises the size from which it asks the system for memory of its own whenever such a
piece is freed, up to 32 MiB; smaller ones then come from a heap that splinters and is hardly ever returned. A
fixed size costs a few per cent of CPU and keeps the resident set at what the plan predicts. What smaller
pieces leave behind is given back when a block is finished.

A training loop takes and frees the same small pieces in every step. If the free end of the heap went back
every time, as it does with a fixed size, an eighth of the loop's CPU time would be page faults.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BYTES = 16 << 20
_TRIMMED, _KEPT = 128 << 10, 1 << 30  # glibc's own threshold, and what a loop's steps may leave free


def return_large_blocks() -> None:
    """Have blocks of 16 MiB and more mapped on their own from now on; nothing happens where glibc is not."""
    _call("mallopt", _M_MMAP_THRESHOLD, _BYTES)


def return_small_blocks() -> None:
    """Give the system back what lies free in the heap now; nothing happens where glibc is not."""
    _call("malloc_trim", 0)


@contextmanager
def small_blocks_kept() -> Iterator[None]:
    """Keep what is freed for the next step inside, and give it back after; nothing happens where glibc is
    not.
    """
    _call("mallopt", _M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        _call("mallopt", _M_TRIM_THRESHOLD, _TRIMMED)
        return_small_blocks()


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
