"""``fit`` on the encoder of texts of two encoders: budgets hold of what is compared with images."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.fit import search as search_module
from edgepress.runtime.bundle.bundle import Bundle

pytestmark = pytest.mark.chain

# The longest text of each: CLIP's are cut there, SigLIP's always as long.
LONGEST = 40


@pytest.mark.slow
@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.usefixtures("table")
def test_budgets_hold_and_the_recipe_repeats_it(
    family: str,
    make_pair: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])
    model, out = f"{make_pair(tmp_path / 'm', family)}:text", tmp_path / "o"
    given = ["fit", model, "--text", str(pico_text), "--samples", "8", "--threads", "1", "--json"]
    assert run([*given, "--max-disk", "1GB", "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    bound = round(1.1 * planned["smallest"])
    budgets = [
        "--max-disk",
        f"{bound}B",
        "--max-memory",
        "2GB",
        "--min-cosine",
        "0.5",
        "--min-sentences",
        "1",
    ]
    assert run([*given, *budgets, "-o", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["judged"], found["objective"]) == ("cosine", "cosine")
    bundle = Bundle.open(out / "bundle")
    assert bundle.encoder.filled == (family == "siglip") and bundle.encoder.max_length == LONGEST
    assert bundle.disk_bytes == found["measured"]["disk"] <= bound
    assert 0.5 <= found["measured"]["cosine"] < 1 and 0.5 <= found["held_out"]["cosine"] < 1
    assert found["held_out_status"] == "apart" and 5e7 < found["measured"]["memory on here"] < 2e9
    assert found["measured"]["sentences on here"] >= 1
    lines = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert [one["workload"]["length"] for one in lines if one["workload"]["kind"] == "embed"] == [LONGEST]
    recipe, text = str(out / "recipe.yaml"), str(out / "calibration.jsonl")
    again = compress_model(model, recipe=recipe, calibration=text, output=tmp_path / "again")
    made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
    differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
    assert hash_tree(bundle.path, skip=differ) == hash_tree(made.path, skip=differ)
