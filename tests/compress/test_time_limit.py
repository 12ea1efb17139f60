"""``--max-time``: every pass that learns ends with it, and a recipe without one refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.recipe import load_recipe, parse
from edgepress.compress.time_limit import limited
from edgepress.errors import RecipeError
from edgepress.files.storage import read_json

pytestmark = pytest.mark.chain


PASSES: list[dict[str, Any]] = [
    {"pass": "prune", "score": "magnitude", "sparsity": 0.5},
    {"pass": "distill", "training": {"max_time": 90, "micro_batch_tokens": 32, "batch_tokens": 64}},
    {"pass": "rtn", "scheme": "W4A16-g32"},
    {"pass": "tune", "training": {"micro_batch_tokens": 32, "batch_tokens": 64}},
]


def test_all_that_learn_have_the_bound_and_nothing_else_changes() -> None:
    recipe = parse({"name": "r", "passes": PASSES}, "here")
    bounded = limited(recipe, 2.5)
    expected: list[dict[str, Any]] = [dict(entry) for entry in PASSES]
    for entry in expected:
        if "training" in entry:
            entry["training"] = entry["training"] | {"max_time": 2.5}
    assert bounded == parse({"name": "r", "passes": expected}, "here")
    assert bounded.sha256 != recipe.sha256


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_are_more_than_none(minutes: float) -> None:
    with pytest.raises(RecipeError, match="no time"):
        limited(load_recipe("best"), minutes)


def test_a_recipe_that_does_not_learn_refuses_it(
    pico_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", str(pico_llama), "-r", "w4a16-rtn", "--max-time", "5", "-o", str(tmp_path / "o")]
    assert run(arguments) == 2
    assert "--max-time bounds passes that learn" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_learning_ends_when_the_time_is_up_and_the_plan_says_so(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": PASSES}))
    chosen = {
        "recipe": str(recipe),
        "calibration": str(pico_text),
        "max_time": 1e-6,
        "samples": 24,
        "length": 32,
    }
    bounded = plan_model(str(pico_llama), **chosen).seconds  # type: ignore[arg-type]
    assert bounded < plan_model(str(pico_llama), **chosen | {"max_time": None}).seconds  # type: ignore[arg-type]
    path = compress_model(str(pico_llama), output=tmp_path / "o", **chosen)  # type: ignore[arg-type]
    steps = read_json(path / "edgepress.json")["steps"]
    assert [step["details"]["stopped"] for step in steps if "details" in step] == ["max_time", "max_time"]
