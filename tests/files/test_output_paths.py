"""Outputs against inputs, and files that are not edgepress's to replace."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import InputError, OutputExists, RefusedByPolicy
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.output_paths import OldOutput, refuse_file, refuse_nesting
from edgepress.files.storage import write_json


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``model`` and ``text`` as inputs, and ``link`` to the directory that has them all."""
    for folder in ("model/below", "text", "other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "text" / "a.txt").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("model", "is the input"),
        ("other/../model", "is the input"),
        ("link/model", "is the input"),
        ("link/link/model/below/..", "is the input"),
        (".", "holds the input"),
        ("text/a.txt", "is the input"),
        ("model/new", "inside the input"),
        ("model/below/new/deeper", "inside the input"),
        ("link/model/new", "inside the input"),
        ("other/../text/../model/new", "inside the input"),
    ],
)
def test_nested_paths_are_refused(house: Path, output: str, named: str) -> None:
    for inputs in (["model", "text/a.txt"], [house / "model", "link/text/a.txt"]):
        with pytest.raises(InputError, match=named):
            refuse_nesting(Path(output), inputs)
        with pytest.raises(InputError, match=named):
            refuse_nesting(house / output, inputs)


@pytest.mark.parametrize("output", ["new", "other", "other/new", "model-2", "text/a.txt.d", "mode"])
def test_others_pass(house: Path, output: str) -> None:
    refuse_nesting(Path(output), ["model", house / "text" / "a.txt", None, "a demo model"])


def test_what_a_run_adds_to_may_have_the_output_beside(house: Path) -> None:
    refuse_nesting(Path("model/new"), [], kept=["model"])
    for output in ("model", "."):
        with pytest.raises(InputError):
            refuse_nesting(Path(output), [], kept=["model/below"])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["directory", "link", "dangling link", "fifo"])
def test_what_is_no_file_stays(house: Path, kind: str, overwrite: bool) -> None:
    path = house / "page"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("text/a.txt" if kind == "link" else "nothing")
    with pytest.raises(OutputExists, match="stays as it is"):
        refuse_file(path, overwrite=overwrite)
    assert (house / "text" / "a.txt").read_text() == "text"


def test_a_file_is_replaced_on_request_and_an_input_never(house: Path) -> None:
    page = house / "page"
    refuse_file(page, overwrite=False)
    page.touch()
    refuse_file(page, overwrite=True, inputs=[house / "text"])
    with pytest.raises(OutputExists, match="--overwrite"):
        refuse_file(page, overwrite=False)
    for path in ("text/a.txt", "link/text/a.txt", "text/new"):
        with pytest.raises(InputError, match="input"):
            refuse_file(Path(path), overwrite=True, inputs=[house / "text"])


def written(folder: Path, manifest: str = "manifest.json", **changes: Any) -> Path:
    """An output with a file in a folder of its own."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    for name in ("model.onnx", "1_Pooling/config.json"):
        (folder / name).write_text(name)
    files = hash_tree(folder, skip=frozenset({manifest}))
    write_json(folder / manifest, {"schema": "edgepress.bundle/1", "files": files, **changes})
    return folder


@pytest.mark.parametrize("manifest", ["manifest.json", "edgepress.json"])
def test_an_output_as_it_was_written(tmp_path: Path, manifest: str) -> None:
    out = written(tmp_path / "out", manifest)
    assert OldOutput(out).changes(out) == []


def test_the_manifest_of_what_it_was_made_of_is_a_file_like_others(tmp_path: Path) -> None:
    for first, second in (("edgepress.json", "manifest.json"), ("manifest.json", "edgepress.json")):
        out = written(written(tmp_path / second, first), second)
        assert OldOutput(out).changes(out) == []
        (out / first).write_text("edited")
        with pytest.raises(OutputExists, match="changed"):
            OldOutput(out)


def test_the_list_is_short_and_counts(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    (out / "documents").mkdir()
    for number in range(20):
        (out / "documents" / f"{number}.txt").touch()
        (out / f"note-{number:02d}").touch()
    (out / "1_Pooling" / "mine").touch()
    with pytest.raises(OutputExists) as caught:
        OldOutput(out)
    shown = ["1_Pooling/mine", "documents", *(f"note-{number:02d}" for number in range(6))]
    assert caught.value.why == ", ".join(map(repr, shown)) + " and 14 more"


@pytest.mark.parametrize("name", ["../victim", "/etc/hostname", "a/../../victim", "a\x00b"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("years")
    out = written(tmp_path / "out", files={name: {"sha256": "0" * 64, "bytes": 5}})
    with pytest.raises(RefusedByPolicy, match="outside"):
        OldOutput(out)
    assert (tmp_path / "victim").read_text() == "years"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[",
        b"[" * 100_000,
        b"\xff",
        b"[1]",
        b'{"schema": 1, "files": {}}',
        *[
            json.dumps({"schema": "edgepress.bundle/1", "files": files}).encode()
            for files in (None, [], "model.onnx", {"model.onnx": None}, {"model.onnx": "1"})
        ],
    ],
    ids=lambda document: document[:50].decode(errors="replace"),
)
def test_a_manifest_that_is_none_accounts_for_nothing(tmp_path: Path, document: bytes) -> None:
    out = written(tmp_path / "out")
    (out / "manifest.json").write_bytes(document)
    with pytest.raises(OutputExists, match="did not write"):
        OldOutput(out)


def test_a_manifest_without_hashes_accounts_for_nothing(tmp_path: Path) -> None:
    out = written(tmp_path / "out", files={"model.onnx": {}, "1_Pooling/config.json": {"sha256": 7}})
    with pytest.raises(OutputExists, match="changed"):
        OldOutput(out)


def test_a_linked_manifest_is_somebodys_own(tmp_path: Path) -> None:
    out = written(tmp_path / "out")
    (out / "manifest.json").rename(tmp_path / "moved.json")
    (out / "manifest.json").symlink_to(tmp_path / "moved.json")
    with pytest.raises(OutputExists, match="did not write"):
        OldOutput(out)


@pytest.mark.parametrize("to", ["1_Pooling/config.json", "../victim"])
def test_a_file_that_became_a_link_is_somebodys_own(tmp_path: Path, to: str) -> None:
    out = written(tmp_path / "out")
    (tmp_path / "victim").write_text("model.onnx")
    (out / "model.onnx").unlink()
    (out / "model.onnx").symlink_to(to)
    with pytest.raises(OutputExists) as caught:
        OldOutput(out)
    assert caught.value.why == "'model.onnx'"
