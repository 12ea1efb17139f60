"""Buffers of a cache take the place of what was freed before them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# 40 MB of small arrays are freed but for one in each 4 MB, which no end of the heap can give back by itself.
FREED = """
import sys
from pathlib import Path
import numpy as np
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.batch_decoder import BatchDecoder
from edgepress.runtime.engine.decoder import Decoder

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

decoder = Decoder.open(Bundle.open(Path(sys.argv[2])), threads=1)
batch = BatchDecoder(decoder.session, decoder.section)
arrays = [np.ones(100 << 10, np.uint8) for _ in range(400)]
before = resident()
held = arrays[::40]
arrays.clear()
made = {"one": lambda: decoder.prefill([1, 2]), "batch": lambda: batch.prefill([[1], [2]]), "none": int}
made[sys.argv[1]]()
print(before - resident())
"""


def freed(how: str, bundle: Path) -> float:
    """Megabytes that the process has less afterwards."""
    command = [sys.executable, "-c", FREED, how, str(bundle)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.chain
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the call is glibc's")
def test_what_is_free_goes_back_when_a_cache_is_made(decoder_bundle: Path) -> None:
    assert freed("none", decoder_bundle) < 10
    assert freed("one", decoder_bundle) > 25
    assert freed("batch", decoder_bundle) > 25
