"""The recipe that is asked for, for one model and another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.compress.asked_recipe import AskedRecipe
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import ShapeError


def test_a_scheme_has_the_groups_of_each_model(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    asked = AskedRecipe(None, "W4A16", None, calibrated=False)
    found = []
    for width in (64, 96):
        model = make_decoder(tmp_path / str(width), hidden_size=width, intermediate_size=2 * width)
        anatomy = WeightSource.open(model).anatomy
        asked.check(anatomy)
        found.append(asked.of(anatomy).name)
    assert found == ["w4a16-g64-rtn", "w4a16-g32-rtn"]


def test_a_recipe_is_the_same_for_every_model_and_may_not_fit(pico_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("passes: [{pass: rtn, scheme: W4A16-g128}]")
    asked = AskedRecipe(str(tmp_path / "r.yaml"), None, None, calibrated=False)
    anatomy = WeightSource.open(pico_llama).anatomy
    assert asked.of(anatomy).steps[0][1].weight_scheme is not None
    with pytest.raises(ShapeError, match="pass rtn: group size 128 does not divide"):
        asked.check(anatomy)
