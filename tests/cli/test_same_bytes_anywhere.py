"""The same input, recipe and seed give the same bytes, whatever folder, locale, time zone, hash seed, umask
and number of threads a process has.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgepress.files.hashed_tree import hash_tree

pytestmark = pytest.mark.chain

PLAIN = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
OTHERS = {"LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "4242", "OMP_NUM_THREADS": "2"}


def made(model: Path, folder: Path, **changes: str) -> tuple[object, object]:
    """The hashes of a checkpoint and of its bundle, made in ``folder``."""
    folder.mkdir()
    for line in (
        ["compress", str(model), "--scheme", "W4A16", "-o", "out"],
        ["export", "out", "-o", "bundle"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "edgepress", *line, "--quiet"],
            cwd=folder,
            env=os.environ | PLAIN | changes,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return hash_tree(folder / "out"), hash_tree(folder / "bundle")


def test_the_bytes_are_the_same(pico_llama: Path, tmp_path: Path) -> None:
    assert made(pico_llama, tmp_path / "here") == made(pico_llama, tmp_path / "elsewhere", **OTHERS)
