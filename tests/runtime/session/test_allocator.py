"""A function of the allocator is called where there is one, and nowhere else."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest
from edgepress.runtime.session.allocator import call_allocator, return_freed_memory


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these calls are glibc's")
def test_what_is_free_between_blocks_in_use_goes_back_to_the_system() -> None:
    arrays = [np.ones(100 << 10, np.uint8) for _ in range(400)]
    before = resident()
    held = arrays[::40]
    arrays.clear()
    return_freed_memory()
    assert before - resident() > 30e6 and all(one.all() for one in held)


def test_what_no_library_has_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    call_allocator("edgepress_no_such_function", 1)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr("ctypes.CDLL")
    return_freed_memory()
