"""``edgepress inspect`` of bundles: their manifest in lines, whatever is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edgepress.cli.entry import edgepress
from edgepress.cli.verbs.inspect import described
from edgepress.errors import InputError
from edgepress.storage import write_json

CACHE = {"head_dim": 64, "kv_heads": 3}


@pytest.mark.parametrize(
    "value, lines",
    [
        ({"layers": [CACHE] * 3, "kv_scheme": None}, "layers: 3 × (head_dim 64, kv_heads 3)"),
        ({"widths": [8, 8, 4, 8], "notes": []}, "widths: 2 × 8, 4, 8\nnotes: none"),
        ({"float": {"bound": 0.000375412, "status": "passed"}}, "float: (bound 0.0003754, status passed)"),
        ("decoder", "decoder"),
    ],
)
def test_told(value: Any, lines: str) -> None:
    assert described(value) == lines


def _inspected(folder: Path, **manifest: Any) -> str:
    folder.mkdir()
    write_json(folder / "manifest.json", manifest)
    return CliRunner().invoke(edgepress, ["inspect", str(folder)], catch_exceptions=False).output


def test_a_name_that_looks_like_markup_is_shown_as_it_is(tmp_path: Path) -> None:
    output = _inspected(tmp_path / "[bold]one", name="[red]two[/red]", **{"[/]": 1})
    assert "[red]two[/red]" in output and "[/]" in output
    assert "[bold]one" in "".join(output.split())


def test_a_manifest_without_end_is_cut(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"in": deep}
    assert "…" in _inspected(tmp_path / "bundle", deep=deep)


@pytest.mark.parametrize("key", ["bytes", "params", "widths", "runs_on", "block_sizes", "layers"])
def test_what_a_checkpoint_has_may_be_anything_in_a_bundle(tmp_path: Path, key: str) -> None:
    assert "strange" in _inspected(tmp_path / "bundle", **{key: [{"strange": 1}, 7]})


@pytest.mark.parametrize("prefill", ["graph", 7, {"file": "prefill.onnx"}, {"linears": 3}])
def test_a_manifest_that_cannot_be_told_is_refused(tmp_path: Path, prefill: Any) -> None:
    with pytest.raises(InputError, match="prefill graph"):
        _inspected(tmp_path / "bundle", kind="decoder", prefill=prefill)
