"""What a recipe says of layers: names that match nothing, and layers that would be quantized twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.api import plan_model
from edgepress.compress.recipe import load_recipe, parse
from edgepress.errors import InputError, RecipeError

pytestmark = pytest.mark.chain

RTN: dict[str, Any] = {"pass": "rtn", "scheme": "W4A16-g32"}
Write = Callable[..., str]


def layers(model: Path, folder: Path, recipe: Write, *passes: dict[str, Any]) -> list[int]:
    """How many layers each pass works on."""
    return [step.layers for step in plan_model(str(model), recipe=recipe(folder, *passes)).steps]


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ("down", 18),
        ("*.mlp.*", 12),
        (r"re:.*\.(q|k)_proj$", 15),
        ("re:model.layers.0", 14),
        ("re:.*lm_head", 21),  # as recipes of other tools leave it out: no pass would work on it
        ("lm_head", 21),
    ],
)
def test_layers_are_left_alone_by_role_glob_or_regular_expression(
    ignore: str, left: int, pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    assert layers(pico_llama, tmp_path, recipe, {**RTN, "ignore": [ignore]}) == [left]
    if left < 21:
        assert layers(pico_llama, tmp_path, recipe, {**RTN, "targets": [ignore]}) == [21 - left]


@pytest.mark.parametrize("key", ["targets", "ignore"])
@pytest.mark.parametrize("pattern", ["dwn", "*.experts.*", "re:.*experts"])
def test_each_layer_that_is_named_must_be_there(
    key: str, pattern: str, pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    with pytest.raises(RecipeError, match=f"in its {key} matches no layer") as refused:
        layers(pico_llama, tmp_path, recipe, {**RTN, key: ["up", pattern]})
    assert pattern in refused.value.what and "down" in refused.value.fix
    with pytest.raises(RecipeError, match="no regular expression"):
        parse({"passes": [{**RTN, key: ["re:("]}]}, "here")


def test_a_layer_is_quantized_twice_only_where_the_recipe_says_so(
    pico_llama: Path, tmp_path: Path, recipe: Write
) -> None:
    again = {"pass": "autoround", "scheme": "W4A16-g32", "targets": ["q", "up"]}
    with pytest.raises(RecipeError, match=r"6 layers that already have codes from the pass rtn") as refused:
        layers(pico_llama, tmp_path, recipe, RTN, again)
    assert "requantize: true in autoround" in refused.value.fix
    plan = plan_model(str(pico_llama), recipe=recipe(tmp_path, RTN, {**again, "requantize": True}))
    assert any("autoround quantizes 6 layers" in note for note in plan.notes)
    # Other layers, folding alone, and qat, which keeps codes, need no word for it.
    assert layers(pico_llama, tmp_path, recipe, {**RTN, "targets": ["q"]}, {**RTN, "ignore": ["q"]}) == [
        3,
        18,
    ]
    awq = {"pass": "awq", "scheme": "W4A16-g32", "quantize": False}
    assert layers(pico_llama, tmp_path, recipe, awq, RTN, {"pass": "qat", "scheme": "W4A16-g32"})[1] == 21
    with pytest.raises(RecipeError, match="true or false"):
        parse({"passes": [{**RTN, "requantize": "yes"}]}, "here")


def test_the_word_is_part_of_a_recipe_only_where_it_is_said() -> None:
    plain, said = ({"name": "r", "passes": [{**RTN, **more}]} for more in ({}, {"requantize": True}))
    assert "requantize" not in parse(plain, "here").as_dict()["passes"][0]
    assert parse(said, "here").as_dict()["passes"][0]["requantize"] is True
    assert parse(plain, "here").sha256 != parse(said, "here").sha256
    assert [step.requantize for step in load_recipe("w3a16-qat").passes] == [False, True, False]


def test_a_recipe_has_its_own_groups(pico_llama: Path) -> None:
    with pytest.raises(InputError, match="a group size is given beside a recipe"):
        plan_model(str(pico_llama), recipe="w4a16-rtn", group_size=32)
