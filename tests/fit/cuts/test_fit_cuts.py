"""A budget that no bits keep is met with a cut, which the report names and the recipe repeats."""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from edgepress.fit import search as search_module
from edgepress.fit.methods import METHODS, SOLVED
from edgepress.runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.chain


def test_a_disk_budget_below_all_bits_is_kept_with_a_cut(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        search_module, "METHODS", (METHODS[0], next(one for one in METHODS if one.cut == SOLVED))
    )
    monkeypatch.setattr(search_module, "ROUNDS", 1)

    def fit(*arguments: str) -> int:
        text = ["--text", str(pico_text), "--samples", "16", "--length", "32", "--threads", "1"]
        return run(["fit", str(pico_llama), *text, "-o", str(tmp_path / "o"), *arguments])

    assert fit("--max-disk", "1GB", "--dry-run", "--json") == 0
    planned: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert planned["cuts"] > 0 and planned["smallest_cut"] < planned["smallest"]
    bound = round((planned["smallest_cut"] + 2 * planned["smallest"]) / 3)
    status = fit("--max-disk", f"{bound}B", "--json")
    assert status == 0, capsys.readouterr()
    found = json.loads(capsys.readouterr().out)
    assert found["measured"]["disk"] <= bound < planned["smallest"]
    assert found["cut"] and all(line.startswith("block ") for line in found["cut"])
    assert f"disk ≤ {bound / 1e3:.1f} kB would have to be" in found["why_no_more"][0]
    out = tmp_path / "o"
    assert found["cut"][0] in (out / "front.html").read_text(encoding="utf-8")
    assert read_json(out / "fit.json")["trials"][0]["method"].startswith(SOLVED)
    again = compress_model(
        str(pico_llama),
        recipe=str(out / "recipe.yaml"),
        calibration=str(out / "calibration.jsonl"),
        output=tmp_path / "again",
    )
    steps = [step["pass"] for step in read_json(again / "edgepress.json")["steps"]]
    assert steps[0] in ("narrow", "layers") and "allocate" in steps
    made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
    differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
    assert hash_tree(out / "bundle", skip=differ) == hash_tree(made.path, skip=differ)
    capsys.readouterr()
    assert fit("--max-disk", f"{bound}B", "--dry-run") == 0
    assert "predicted to be better: block " in capsys.readouterr().out
