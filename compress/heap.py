"""Freed tensors go back to the system at once, so that the peak of memory is what is in use.

The C library of Linux raises the size from which it asks the system for memory of its own whenever such a
piece is freed, up to 32 MiB; smaller ones then come from a heap that splinters and is hardly ever returned. A
fixed size costs a few per cent of CPU and keeps the resident set at what the plan predicts. What smaller
pieces leave behind is given back when a block is finished.
"""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3
_BYTES = 16 << 20


def return_large_blocks() -> None:
    """Have blocks of 16 MiB and more mapped on their own from now on; nothing happens where glibc is not."""
    _call("mallopt", _M_MMAP_THRESHOLD, _BYTES)


def return_small_blocks() -> None:
    """Give the system back what lies free in the heap now; nothing happens where glibc is not."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
