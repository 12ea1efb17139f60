"""Freed arrays leave the process: large ones at once, small ones when that is asked for."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.chain


LARGE = """
import sys
import numpy as np
from edgepress.compress.pipeline.device import return_large_blocks

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
from edgepress.compress.pipeline.device import return_small_blocks

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

STEPS = """
import resource
import sys
from contextlib import nullcontext
import numpy as np
from edgepress.compress.pipeline.device import return_large_blocks, small_blocks_kept

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

return_large_blocks()
before, began = resident(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
with small_blocks_kept() if sys.argv[1] == "kept" else nullcontext():
    for step in range(20):
        arrays = [np.ones(1 << 20, np.uint8) for _ in range(40)]
        arrays.clear()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began
assert resident() - before < 10, resident() - before
print(faults)
"""


def left_over(script: str, how: str) -> float:
    """What the script prints: resident megabytes after all arrays but one were freed, or page faults."""
    done = subprocess.run(
        [sys.executable, "-c", script, how], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these calls are glibc's")
@pytest.mark.parametrize(("script", "kept"), [(LARGE, 30), (SMALL, 10)])
def test_only_what_is_in_use_stays_resident(script: str, kept: float) -> None:
    assert left_over(script, "called") < kept
    assert left_over(script, "not called") > 3 * kept


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these calls are glibc's")
def test_a_loop_keeps_what_its_next_step_takes() -> None:
    """40 MB a step are 10,240 pages, which come once and not in each of 20 steps; then they are gone."""
    assert left_over(STEPS, "kept") < 0.3 * left_over(STEPS, "not kept")
