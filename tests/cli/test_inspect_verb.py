"""``edgepress inspect`` of bundles: their manifest in lines, whatever is in it."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgepress.cli.program import edgepress
from edgepress.files.storage import write_json


def _inspected(folder: Path, **manifest: Any) -> str:
    folder.mkdir()
    write_json(folder / "manifest.json", manifest)
    return CliRunner().invoke(edgepress, ["inspect", str(folder)], catch_exceptions=False).output


def test_a_name_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    output = _inspected(tmp_path / "[bold]one", name="[red]two[/red]", **{"[/]": 1})
    assert "[red]two[/red]" in output and "[/]" in output
    assert "[bold]one" in "".join(output.split())


def test_a_bundle_fits_a_screen_and_layers_shows_all(tmp_path: Path) -> None:
    names = [f"model.layers.{block}.{part}_proj" for block in range(30) for part in "qkvo"]
    layers = [{"name": name, "scheme": "W4A16-g64", "status": "ok", "error": 0.01} for name in names]
    fields: dict[str, Any] = {f"field {number}": {"text": "a word " * 200} for number in range(8)}
    fields["files"] = {"model.onnx": {"bytes": 12_300_000, "sha256": "0" * 64}}
    output = _inspected(tmp_path / "b", layers=layers, **fields)
    assert len(output.splitlines()) <= 24 and "120 × W4A16-g64 ok" in output and "--layers" in output
    assert "12.3 MB" in output and names[7] not in output
    assert [line.split()[0] for line in output.splitlines()[1:4]] == ["what", "size", "layers"]
    whole = CliRunner().invoke(edgepress, ["inspect", str(tmp_path / "b"), "--layers"]).output
    assert all(name in whole for name in names) and whole.count("a word") > 1000


def test_a_checkpoint_lists_its_layers(pico_llama: Path) -> None:
    brief, whole = (
        CliRunner().invoke(edgepress, ["inspect", str(pico_llama), *more]).output
        for more in ([], ["--layers"])
    )
    assert "model.layers.1.mlp.up_proj" in whole and "model.layers.1.mlp.up_proj" not in brief
    assert len(brief.splitlines()) <= 24
    labels = [re.split(r"  +", line.strip())[0] for line in brief.splitlines()[1:-1]]
    assert {"family", "hidden size", "key/value heads", "context", "opens in"} <= set(labels)
    assert not any("_" in label for label in labels)


def test_a_layer_is_a_line_that_begins_with_its_name(tmp_path: Path) -> None:
    layer = {"error": 0.00905, "name": "a.q_proj", "other": "weight", "scheme": "W4A16-g64", "status": "ok"}
    write_json(tmp_path / "manifest.json", {"layers": [layer, None, "odd"]})
    shown = CliRunner().invoke(edgepress, ["inspect", str(tmp_path), "--layers"], catch_exceptions=False)
    assert shown.output.splitlines()[-3:] == ["a.q_proj  W4A16-g64  ok  0.00905  weight", "None", "odd"]


def test_a_manifest_does_not_say_what_or_where_it_is(tmp_path: Path) -> None:
    output = _inspected(tmp_path / "bundle", what="checkpoint", path="elsewhere", kind="decoder")
    assert "elsewhere" not in output and ["what", "bundle"] in [line.split() for line in output.splitlines()]


def test_a_manifest_without_end_is_cut(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"in": deep}
    assert "…" in _inspected(tmp_path / "bundle", deep=deep)


@pytest.mark.parametrize(
    "key", ["bytes", "params", "widths", "runs_on", "block_sizes", "layers", "size_bytes"]
)
def test_what_a_checkpoint_has_may_be_anything_in_a_bundle(tmp_path: Path, key: str) -> None:
    assert "strange" in _inspected(tmp_path / "bundle", **{key: [{"strange": 1}, 7]})
