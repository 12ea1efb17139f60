"""The cache of an original's answers: what was written is read, and nothing else is taken for it."""

import os
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.records import answer_cache
from edgepress.benchmarks.records.answer_cache import FOLDER, AnswerCache, arithmetic_of
from edgepress.compress.pipeline.journal import sealed
from edgepress.terminal.progress import Silent
from safetensors.numpy import save

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
RUNTIME = {"name": "torch", "threads": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(answer_cache, "cache_directory", lambda: tmp_path)
    return tmp_path / FOLDER


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_what_was_written_is_read_under_the_same_owner_and_question() -> None:
    cache = AnswerCache("a")
    cache.write("rows", ["x"], {"rows": ROWS})
    found = AnswerCache("a").read("rows", ["x"])
    assert found is not None and found["rows"].dtype == np.float32
    np.testing.assert_array_equal(found["rows"], ROWS)
    assert AnswerCache("b").read("rows", ["x"]) is None
    assert cache.read("rows", ["y"]) is None and cache.read("others", ["x"]) is None


def test_without_an_owner_nothing_is_kept(folder: Path) -> None:
    cache = AnswerCache(None)
    cache.write("rows", [], {"rows": ROWS})
    assert cache.read("rows", []) is None and not folder.exists()


def test_a_cut_or_changed_entry_is_none(folder: Path) -> None:
    cache = AnswerCache("a")
    cache.write("rows", [], {"rows": ROWS})
    path = entry(folder)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert cache.read("rows", []) is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.read("rows", []) is None
    path.write_bytes(whole)
    assert cache.read("rows", []) is not None


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\xff" * 8 + b"{}", save({})[:-1]])
def test_what_is_no_safetensors_file_under_a_right_seal_is_none(folder: Path, content: bytes) -> None:
    cache = AnswerCache("a")
    cache.write("rows", [], {"rows": ROWS})
    entry(folder).write_bytes(sealed(content))
    assert cache.read("rows", []) is None


def test_neither_a_folder_nor_a_pipe_is_read(folder: Path) -> None:
    cache = AnswerCache("a")
    cache.write("rows", [], {"rows": ROWS})
    path = entry(folder)
    path.unlink()
    path.mkdir()
    assert cache.read("rows", []) is None
    cache.write("rows", [], {"rows": ROWS})  # no file can stand there
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert cache.read("rows", []) is None
        cache.write("rows", [], {"rows": ROWS})
        assert cache.read("rows", []) is not None


def test_what_was_not_read_for_longest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = AnswerCache("a")
    for number in range(3):
        cache.write("rows", number, {"rows": ROWS})
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert cache.read("rows", 1) is not None  # read now
    monkeypatch.setattr(answer_cache, "MOST", 2 * entry_size(folder))
    cache.write("rows", 3, {"rows": ROWS})
    assert [cache.read("rows", number) is not None for number in range(4)] == [False, True, False, True]


def entry_size(folder: Path) -> int:
    return next(folder.iterdir()).stat().st_size


def test_an_entry_that_is_too_large_is_neither_written_nor_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = AnswerCache("a")
    cache.write("rows", [], {"rows": ROWS})
    monkeypatch.setattr(answer_cache, "LARGEST", 40)
    assert cache.read("rows", []) is None
    cache.write("rows", [1], {"rows": ROWS})
    assert len(list(folder.iterdir())) == 1


def test_a_full_disk_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "free_disk", lambda _: 1000)
    AnswerCache("a").write("rows", [], {"rows": ROWS})
    assert not list(folder.iterdir())


def test_where_nothing_can_be_written_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(answer_cache, "cache_directory", lambda: tmp_path / "file")
    cache = AnswerCache("a")
    cache.write("rows", [], {"rows": ROWS})
    assert cache.read("rows", []) is None


def test_what_was_used_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    notes = Silent()
    monkeypatch.setattr(notes, "note", said.append)
    cache = AnswerCache("a")
    cache.say(notes)
    for what in ("replies", "rows", "replies"):
        cache.use(what)
    cache.say(notes)
    assert said == ["from the cache, of the original: replies, rows"]


def test_it_is_the_same_for_the_same() -> None:
    assert arithmetic_of("a", RUNTIME) == arithmetic_of("a", dict(RUNTIME))


def test_model_and_runtime_count() -> None:
    others = [("b", RUNTIME), ("a", {**RUNTIME, "threads": 2}), ("a", {**RUNTIME, "streamed": True})]
    found = {arithmetic_of(model, runtime) for model, runtime in [("a", RUNTIME), *others]}
    assert len(found) == 4


@pytest.mark.parametrize(
    "name", ["MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "EDGEPRESS_KERNELS"]
)
def test_variables_that_choose_instructions_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = arithmetic_of("a", RUNTIME)
    monkeypatch.setenv(name, "avx2")
    assert arithmetic_of("a", RUNTIME) != before


def test_a_missing_library_is_none() -> None:
    assert answer_cache._version("edgepress-of-nowhere") is None
    assert answer_cache._version("numpy")


@pytest.mark.parametrize("part", ["_version", "_processor", "_code", "library"])
def test_libraries_processor_and_code_count(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = arithmetic_of("a", RUNTIME)
    monkeypatch.setattr(answer_cache, part, lambda *_: None)
    if part == "library" and arithmetic_of("a", RUNTIME) == before:
        pytest.skip("there is no library of operators here")
    assert arithmetic_of("a", RUNTIME) != before
