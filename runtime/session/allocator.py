"""What glibc's allocator keeps and gives back; nothing elsewhere.

A block that is freed between others stays with the process: its pages count as resident until they are used
again or given back.
"""

import ctypes
import sys


def call_allocator(name: str, *arguments: int) -> None:
    """Call glibc's function ``name``; does nothing where there is none."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def return_freed_memory() -> None:
    """Give the system back what the allocator holds free now: whole pages, of every thread's blocks."""
    call_allocator("malloc_trim", 0)
