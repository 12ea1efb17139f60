"""Freed arrays leave the process: large ones at once, small ones when that is asked for."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

LARGE = """
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


SMALL = """
import sys
import numpy as np
from edgepress.compress.heap import return_small_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

before = resident()
arrays = [np.ones(100 << 10, np.uint8) for _ in range(1000)]
last = arrays.pop()
arrays.clear()
if sys.argv[1] == "called":
    return_small_blocks()
print(resident() - before)
"""


def left_over(script: str, how: str) -> float:
    """Resident megabytes after all arrays but one were freed."""
    done = subprocess.run(
        [sys.executable, "-c", script, how], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these calls are glibc's")
@pytest.mark.parametrize(("script", "kept"), [(LARGE, 30), (SMALL, 10)])
def test_only_what_is_in_use_stays_resident(script: str, kept: float) -> None:
    assert left_over(script, "called") < kept
    assert left_over(script, "not called") > 3 * kept
