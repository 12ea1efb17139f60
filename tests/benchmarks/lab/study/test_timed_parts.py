"""Every function whose time is taken is met by a compression: one that was moved would count as no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.study.timed_parts import KINDS

pytestmark = pytest.mark.chain

# In a process of its own: the functions are replaced in their modules before others import them.
PROGRAM = """
import json, os
from edgepress.benchmarks.lab.study import timed_parts
met, timed = set(), timed_parts.Clock.timed
def noted(clock, kind, function):
    def call(*arguments, **named):
        met.add(function.__qualname__)
        return function(*arguments, **named)
    return timed(clock, kind, call)
timed_parts.Clock.timed = noted
try:
    timed_parts.main()
finally:
    with open(os.environ["MET"], "w") as file:
        json.dump(sorted(met), file)
"""


def test_a_compression_meets_every_function_that_is_timed(pico_llama: Path, tmp_path: Path) -> None:
    seconds, met = tmp_path / "seconds.json", tmp_path / "met.json"
    words = ["compress", str(pico_llama), "--scheme", "W4A16-g32", "-o", str(tmp_path / "out"), "-q"]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seconds), *words], check=True, env={**os.environ, "MET": str(met)}
    )
    wanted = {getattr(owner, name).__qualname__ for functions in KINDS.values() for owner, name in functions}
    assert set(json.loads(met.read_text())) == wanted
    found = json.loads(seconds.read_text())
    assert found.keys() == KINDS.keys() and min(found.values()) > 0
