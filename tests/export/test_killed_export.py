"""An export that is killed at any moment leaves nothing behind that the next one does not take away, and that
one writes the bytes of an export that nobody disturbed.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgepress.compress.api import compress_model
from edgepress.files.hashed_tree import hash_tree

pytestmark = pytest.mark.chain


def start(checkpoint: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgepress", "export", str(checkpoint), "-o", str(output), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--threads", "1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_change_no_byte(kills: int, pico_llama: Path, tmp_path: Path) -> None:
    checkpoint = compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "w4")
    whole, disturbed = tmp_path / "whole" / "bundle", tmp_path / "disturbed" / "bundle"
    begun = time.monotonic()
    assert start(checkpoint, whole).wait() == 0
    seconds, generator = time.monotonic() - begun, random.Random(kills)
    for _ in range(kills):
        child = start(checkpoint, disturbed)
        written = disturbed.with_name(".bundle.partial") / "result" / "model.onnx"
        while not written.exists() and child.poll() is None:  # the proof comes after that
            time.sleep(0.01)
        time.sleep(generator.random() * seconds / 4)
        child.kill()
        child.wait()
    published = disturbed.exists()  # a kill may come too late
    assert start(checkpoint, disturbed).wait() == (2 if published else 0)
    assert hash_tree(disturbed) == hash_tree(whole)
    assert [path.name for path in disturbed.parent.iterdir()] == ["bundle"]
