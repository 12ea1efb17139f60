"""Recipes: the right key is suggested, defaults are filled in, and equal recipes have equal hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.algorithm import pass_names
from edgepress.compress.plan import multiplications
from edgepress.compress.recipe import load_recipe, names, parse, recipe_for, schema
from edgepress.errors import EdgepressError, RecipeError, UnknownName


def test_every_packaged_recipe_loads() -> None:
    assert {"w4a16-gptq", "w4a16-rtn", "w8a8"} <= set(names())
    for name in names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert parse({**recipe.as_dict()}, "again").sha256 == recipe.sha256


def test_the_presets_go_from_seconds_without_data_to_everything_that_helps(pico_llama: Path) -> None:
    fast, balanced, best = map(load_recipe, ("fast", "balanced", "best"))
    assert not fast.calibrated and balanced.calibrated and best.calibrated
    assert [name for name, _ in best.steps] == ["awq", "gptq", "tune"]
    source = WeightSource.open(pico_llama)
    work = [multiplications(source, recipe, 64, 64, 1024) for recipe in (fast, balanced, best)]
    assert work == sorted(work)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"passes": [{"pass": "gptq", "shceme": "W4A16"}]}, "'scheme'"),
        ({"passes": [{"pass": "gtpq", "scheme": "W4A16"}]}, "'gptq'"),
        ({"passes": [{"pass": "gptq", "scheme": "W4A61"}]}, "W4A16"),
        ({"pases": [{"pass": "gptq"}]}, "'passes'"),
        ({"passes": []}, "at least one pass"),
        ({"passes": [{"scheme": "W4A16"}]}, "'pass' key"),
        ({"passes": [{"pass": "gptq"}]}, "scheme"),
        ({"passes": [{"pass": "magnitude", "sparsity": 1.5}]}, "less than 1"),
        ({"passes": [{"pass": "w8a8"}], "embedding": "W8A8"}, "weight-only"),
        ({"passes": [{"pass": "w8a8"}], "calibration": {"sampels": 3}}, "'samples'"),
        ({"passes": [{"pass": "w8a8"}], "calibration": {"samples": 0}}, "greater than or equal to 1"),
        (["passes"], "not a mapping"),
        ({"passes": [{"pass": "rtn", "scheme": {"bits": 5}}]}, "bits"),
        ({"passes": [{"pass": "../../x"}]}, "unknown pass"),
    ],
)
def test_mistakes_name_the_place_and_the_way_out(data: object, message: str) -> None:
    with pytest.raises((RecipeError, UnknownName)) as caught:
        parse(data, "r.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "!!python/object/apply:os.system ['true']", "\x00", "passes: *x", "1: 2", ""]
)
def test_hostile_files_are_typed_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(EdgepressError):
        load_recipe(str(path))


def test_the_short_way() -> None:
    assert recipe_for("W4A16", group_size=64, calibrated=False).summary == "W4A16-g64 rtn"
    assert recipe_for("W4A16", group_size=64, calibrated=True).summary == "W4A16-g64 gptq"
    assert recipe_for("W8A8", group_size=None, calibrated=False).summary == "W8A8"
    with pytest.raises(RecipeError, match="7"):
        recipe_for("W4A16", group_size=7, calibrated=False)


def test_hash_changes_with_any_option() -> None:
    base = {"passes": [{"pass": "gptq", "scheme": "W4A16"}]}
    changed = {"passes": [{"pass": "gptq", "scheme": "W4A16", "damping": 0.02}]}
    explicit = {"passes": [{"pass": "gptq", "scheme": "W4A16-g128", "damping": 0.01}]}
    assert parse(base, "a").sha256 == parse(explicit, "b").sha256 != parse(changed, "c").sha256


def test_schema_lists_every_pass_and_is_json() -> None:
    document = json.loads(json.dumps(schema()))
    titles = {entry["title"] for entry in document["properties"]["passes"]["items"]["oneOf"]}
    assert titles == set(pass_names()) >= {"gptq", "hqq", "rtn", "sparsegpt", "w8a8", "wanda"}
