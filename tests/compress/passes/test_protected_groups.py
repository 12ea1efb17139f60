"""``--protect``: its text is calibrated with and recorded, and ``allocate`` spares the group that loses
most."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.text import micro_batches
from edgepress.compress.text.protected_text import read_protected
from edgepress.errors import InputError, RecipeError
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain

SCHEMES = [f"W{bits}A16-g32" for bits in (2, 3, 4, 8)]


@pytest.fixture
def grouped(tmp_path: Path, pico_text: Path) -> Path:
    parts = pico_text.read_text(encoding="utf-8").split("\n\n")
    rows = [{"text": part, "group": ("one", "two", "three")[n % 3]} for n, part in enumerate(parts)]
    path = tmp_path / "grouped.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def recipe(folder: Path, **step: Any) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "mixed", "passes": [step]}))
    return str(path)


def allocate(folder: Path, **options: Any) -> str:
    step = {"pass": "allocate", "bits": 3.0, "schemes": SCHEMES, "using": {"pass": "rtn"}, **options}
    return recipe(folder, **step)


@pytest.mark.parametrize("using", [pytest.param("rtn", marks=pytest.mark.slow), "gptq"])
def test_the_worst_group_is_spared_within_the_same_budget(
    using: str,
    pico_llama: Path,
    pico_text: Path,
    grouped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if using == "gptq":  # looks at the other half
        monkeypatch.setattr(micro_batches, "MEASURED_TOKENS", 128)
    chosen = allocate(tmp_path, using={"pass": using})
    common = ("compress", str(pico_llama), "-r", chosen, "--text", str(pico_text), "-q")
    sizes = ("--samples", "8", "--length", "32")
    assert run([*common, *sizes, "-o", str(tmp_path / "plain")]) == 0
    assert run([*common, *sizes, "-o", str(tmp_path / "o"), "--protect", f"slice={grouped}"]) == 0
    manifest = read_json(tmp_path / "o" / "edgepress.json")
    names = {f"grouped: {name}" for name in ("one", "two", "three")}
    assert set(manifest["calibration"]["protected"]) == names
    details = manifest["steps"][0]["details"]
    found = details["protected"]
    assert set(found["groups"]) == names and details["bits_per_weight"] <= 3.0
    worst, before = (
        max(group[kind] for group in found["groups"].values()) for kind in ("predicted", "unprotected")
    )
    assert found["worst_at_least"] <= worst <= before * (1 + 1e-9)
    assert found["ordinary"]["predicted"] <= 1.03 * found["ordinary"]["unprotected"] * (1 + 1e-9)
    plain = read_json(tmp_path / "plain" / "edgepress.json")
    assert plain["run"]["key"] != manifest["run"]["key"]
    unprotected = plain["steps"][0]["details"]
    if using == "rtn":
        assert found["ordinary"]["unprotected"] == pytest.approx(unprotected["predicted"], rel=1e-3)


def test_the_plan_says_it_and_what_cannot_be_done_is_refused(
    pico_llama: Path, pico_text: Path, grouped: Path, tmp_path: Path
) -> None:
    given = {"protect": [read_protected(grouped)], "calibration": str(pico_text), "samples": 8, "length": 32}
    plan = plan_model(str(pico_llama), recipe=allocate(tmp_path), **given)
    assert any("protects grouped (3 groups)" in note and "loses most" in note for note in plan.notes)
    assert plan.calibration_tokens == 12 * 32
    with pytest.raises(InputError, match="reads no text"):
        plan_model(
            str(pico_llama), recipe=recipe(tmp_path, **{"pass": "rtn", "scheme": "W4A16-g32"}), **given
        )
    with pytest.raises(RecipeError, match="know nothing of protected groups"):
        costs = {"model.layers.0.mlp.down_proj": {"W4A16-g32": 1.0}}
        compress_model(
            str(pico_llama),
            output=tmp_path / "o",
            recipe=allocate(tmp_path, costs=costs, using={"pass": "gptq"}),
            **given,
        )


def test_an_unknown_slice_and_one_without_text_are_refused(
    pico_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["compress", str(pico_llama), "-r", allocate(tmp_path), "-o", str(tmp_path / "o")]
    for name, message in (("slice=langages", "languages"), ("slice=syntax", "no text to calibrate with")):
        assert run([*common, "--protect", name]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
