"""Whether an export says that a model may have lost its text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.export.api import export_bundle
from edgepress.export.proof import parity
from edgepress.export.proof.parity import lost_text
from edgepress.files.storage import read_json


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, ""),
        ({"replies": {"prompts": 20, "loops": 4, "kl": 0.4}}, ""),
        (
            {"replies": {"prompts": 20, "loops": 5, "kl": 1.3}},
            "5 of 20 greedy replies end in a loop: ",
        ),
    ],
)
def test_many_loops_are_said(found: dict[str, Any], said: str) -> None:
    assert lost_text(found).startswith(said) and bool(lost_text(found)) == bool(said)


@pytest.mark.chain
def test_what_lost_much_is_asked(
    make_decoder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = make_decoder(tmp_path / "model", "llama", num_hidden_layers=1, max_position_embeddings=256)
    compressed = tmp_path / "w4"
    assert (
        run(["compress", str(model), "--scheme", "W4A16", "--group-size", "32", "-o", str(compressed)]) == 0
    )
    export_bundle(compressed, output=tmp_path / "little")
    assert "replies" not in read_json(tmp_path / "little" / "manifest.json")["parity"]
    monkeypatch.setattr(parity, "_MUCH", -1.0)
    monkeypatch.setattr(parity, "MANY", 0.0)
    capsys.readouterr()
    assert run(["export", str(compressed), "-o", str(tmp_path / "much")]) == 0
    said = "of 20 greedy replies end in a loop"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "much" / "README.md").read_text(encoding="utf-8")
