"""Freed arrays of tens of megabytes leave the process, even where a later one is still in use."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from edgepress.compress.heap import return_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "called":
    return_large_blocks()
np.ones(31 << 20, np.uint8)  # freed at once: the C library may learn a larger threshold from it
before = resident()
arrays = [np.ones(20 << 20, np.uint8) for _ in range(10)]
last = arrays.pop()
arrays.clear()
print(resident() - before)
"""


def left_over(how: str) -> float:
    """Resident megabytes after nine of ten arrays of 20 MB were freed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_only_what_is_in_use_stays_resident() -> None:
    assert left_over("called") < 30
    assert left_over("not called") > 100
