"""Every reader meets a few hundred mutants, and the program that tries millions sees a crash and a hang."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.lab.programs import fuzz
from edgepress.benchmarks.lab.programs.fuzz import READERS, mutated, run_child, try_one
from edgepress.benchmarks.lab.programs.fuzz_readers.models import Reader
from edgepress.benchmarks.lab.programs.fuzz_readers.mutations import mutant
from edgepress.benchmarks.lab.programs.fuzz_readers.tally import Tally, share_out
from edgepress.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st

MUTANTS = 300
WHOLE = 10  # of a reader's files, as many as those of GGUF's settings
# Models, plans and pages are built of these, or child processes asked.
LONGER = {
    "gguf_settings": 60,
    "config": 60,
    "recipe": 100,
    "records": 60,
    "tokenizer": 60,
    "template": 150,
    "calibration": 60,
}


def tried(name: str, count: int, folder: Path) -> Tally:
    """Files are read whole; of mutants Hypothesis chooses the seeds, and names the smallest that fails."""
    reader, tally = READERS[name](folder / "files"), Tally()
    before = {path: path.read_bytes() for path in reader.files}
    for path in sorted(before)[:WHOLE]:
        reader.read(path)

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**62))
    def meets(seed: int) -> None:
        try_one(reader, seed, tally)
        assert tally.failures == {}

    meets()
    assert {path: path.read_bytes() for path in reader.files} == before
    return tally


def check(tally: Tally, count: int) -> None:
    assert tally.failures == {}
    assert tally.mutants >= count and tally.read > 0


@pytest.mark.parametrize("name", sorted(READERS.keys() - LONGER.keys()))
def test_mutants_are_read_or_refused(name: str, tmp_path: Path) -> None:
    check(tried(name, MUTANTS, tmp_path), MUTANTS)


@pytest.mark.chain
@pytest.mark.parametrize(("name", "count"), LONGER.items())
def test_mutants_of_what_takes_longer_are_read_or_refused(name: str, count: int, tmp_path: Path) -> None:
    check(tried(name, count, tmp_path), count)


def test_a_mutant_is_made_of_its_seed_alone(tmp_path: Path) -> None:
    reader = READERS["manifests"](tmp_path / "files")
    first = [mutated(reader, seed) for seed in range(50)]
    assert [mutated(reader, seed) for seed in reversed(range(50))] == first[::-1]
    assert len({data for _, data in first}) > 40


@pytest.mark.parametrize("form", ["json", "jsonl", "bytes", "safetensors"])
def test_mutants_of_any_bytes(form: str) -> None:
    generator = random.Random(0)
    header = json.dumps({"a": [1, 2, {"b": "c"}]}).encode()
    whole = {"safetensors": len(header).to_bytes(8, "little") + header + bytes(8)}.get(form, header)
    for data in (whole, b"", b"[]", b"\xff" * 100):
        made = [mutant(data, form, [b"word"], generator) for _ in range(200)]
        assert len(set(made)) > 20 and max(map(len, made)) < 1 << 16


def toy(read: Callable[[Path], object]) -> Callable[[Path], Reader]:
    def make(folder: Path) -> Reader:
        folder.mkdir(parents=True)
        path = folder / "file"
        path.write_bytes(b"abcdefgh")
        return Reader({path: "bytes"}, read, seconds=0.2)

    return make


def refusing(path: Path) -> None:
    raise InputError("no")


def failing(path: Path) -> None:
    raise KeyError("untyped")


def test_what_is_neither_read_nor_refused_is_told_by_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "_limit_memory", lambda: None)  # it would be this process's
    for name, read in (("refusing", refusing), ("failing", failing)):
        monkeypatch.setitem(READERS, name, toy(read))
        (tmp_path / name).mkdir()
        run_child(name, 5, 60.0, 3, tmp_path / name)
    found = fuzz._tally(tmp_path / "refusing")
    assert (found.mutants, found.refused, found.failures) == (3, {"InputError": 3}, {})
    found = fuzz._tally(tmp_path / "failing")
    assert found.failures.keys() == {5, 6, 7} and "file: KeyError: 'untyped'" in found.failures[5]


def test_time_is_split_so_that_all_get_as_many() -> None:
    fast, slow, enough, faulty = (Tally(seconds=4.0, read=count) for count in (400, 40, 1000, 30))
    faulty.failures = dict.fromkeys(range(20), "one fault")
    tallies = {"fast": fast, "slow": slow, "enough": enough, "faulty": faulty, "not begun": Tally()}
    assert share_out(tallies, 11.0, 1000) == pytest.approx({"fast": 1.0, "slow": 10.0})
    assert share_out(tallies, 1e9, 1000) == pytest.approx({"fast": 6.0, "slow": 96.0})


PLANTED = """
import os, sys, time
from edgepress.benchmarks.lab.programs import fuzz
from edgepress.benchmarks.lab.programs.fuzz_readers.models import Reader
def make(folder):
    folder.mkdir(parents=True)
    path = folder / "file"
    path.write_bytes(b"x")
    seeds = iter(range(int(sys.argv[3]), 1000))
    def read(path):
        seed = next(seeds)
        if seed == 2: os.kill(os.getpid(), 11)
        if seed == 4: time.sleep(60)
        while seed == 8: pass
        if seed == 6: bytearray(1 << 40)
    return Reader({path: "bytes"}, read, seconds=0.3)
fuzz.READERS["planted"] = make
__spec__ = None
sys.argv[1:2] == ["--child"] and fuzz.main()
"""


@pytest.mark.chain
def test_a_crash_a_hang_and_too_much_memory_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def planted(command: list[str], **options: Any) -> Any:
        assert command[1:3] == ["-m", fuzz.__name__]
        return run([sys.executable, "-c", PLANTED, *command[3:]], **options)

    monkeypatch.setattr(subprocess, "run", planted)
    found = fuzz.fuzz("planted", 0, 60.0, 10)
    assert found.failures.keys() == {2, 4, 6, 8} and found.failures[8] == "hang"
    assert found.failures[2].startswith("crash: exit code -11") and found.failures[4] == "hang"
    assert "MemoryError" in found.failures[6]
