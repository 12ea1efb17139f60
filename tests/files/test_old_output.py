"""What ``--overwrite`` may replace: what the old manifest names, as it was written, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.errors import OutputExists, RefusedByPolicy
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.old_output import OldOutput
from edgepress.files.storage import write_json


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
