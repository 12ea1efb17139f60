"""The loop of faults: which calls it meets, and what it says of what is left."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.fault_loop import Tally, Verb, _numbers, compiled

# Writes a file below a folder by three calls, opening, writing and renaming, the n-th of which fails.
PROBE = """
import ctypes, os, sys
library, folder, number, fault = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
loop = ctypes.CDLL(library)
open(folder + "/before", "w").close()
loop.fault_begin(folder.encode(), ctypes.c_long(number), fault)
try:
    handle = os.open(folder + "/a", os.O_WRONLY | os.O_CREAT)
    done = os.write(handle, b"12345678")
    os.rename(folder + "/a", folder + "/b")
    print(done)
except OSError as error:
    print(-error.errno)
"""


def test_calls_are_all_or_spread_evenly() -> None:
    assert _numbers(4, 10) == [1, 2, 3, 4]
    assert _numbers(101, 5) == [1, 26, 51, 76, 101]


@pytest.mark.chain
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="no compiler, or no Linux")
@pytest.mark.parametrize(
    ("number", "fault", "said", "left"),
    [
        (1, errno.ENOSPC, -errno.ENOSPC, ["before"]),
        (2, errno.EIO, -errno.EIO, ["a", "before"]),
        (2, -1, 4, ["b", "before"]),
        (3, errno.EINTR, -errno.EINTR, ["a", "before"]),
        (4, errno.EIO, 8, ["b", "before"]),
        (3, -2, None, ["a", "before"]),
    ],
)
def test_the_call_of_a_number_fails_alone(
    number: int, fault: int, said: int | None, left: list[str], tmp_path: Path
) -> None:
    library, folder = compiled(tmp_path), tmp_path / "folder"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(library), str(folder), str(number), str(fault)],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (-9 if said is None else 0), done.stderr
    assert done.stdout.strip() == ("" if said is None else str(said))
    assert sorted(path.name for path in folder.iterdir()) == left


def test_what_is_neither_old_nor_new_is_torn(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    verb = Verb("compress", tmp_path / "place", [], tmp_path / "old")
    verb.prepare()
    assert verb.state() == "whole"
    (verb.output / "a").write_text("half")
    assert verb.state() == "torn"
    shutil.rmtree(verb.output)
    assert verb.state() == "torn"
    shutil.copytree(tmp_path / "old", verb.folder / ".out.partial" / "replaced")
    assert verb.state() == "aside"


def test_a_row_has_every_column() -> None:
    found = Tally(7, tried=2)
    found.ends["typed"] += 2
    found.states["whole"] += 2
    assert found.row("export", "EIO") == [
        "export",
        "EIO",
        "7",
        "2",
        "2",
        "0",
        "0",
        "0",
        "2",
        "0",
        "0",
        "0",
        "0",
    ]
