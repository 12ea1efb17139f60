"""What a method takes is what ``compress`` plans for its recipe, without the model being opened again."""

from pathlib import Path

import pytest
import yaml
from edgepress.compress.api import plan_model
from edgepress.compress.model.checkpoint.reader import CheckpointReader
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import OutOfResource
from edgepress.fit import planned_time
from edgepress.fit.api import plan_fit
from edgepress.fit.asked.wish import Wish
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import space_of
from edgepress.fit.choices import recipe_of
from edgepress.fit.methods import METHODS, Method
from edgepress.fit.planned_time import (
    cutting_seconds,
    planned_seconds,
    require_room_to_measure,
    seconds_with_room,
)
from edgepress.fit.quantities import DISK

SETTINGS = {"samples": 16, "length": 32, "seed": 0}


@pytest.mark.parametrize("method", [*METHODS, Method(packaged="w4a16-gptq")])
def test_it_is_what_compress_plans(
    method: Method, pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "EDGEPRESS_CACHE", str(tmp_path / "cache")
    )  # where the first keeps this machine's rates
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    recipe = recipe_of(space, (0,) * len(space.units), method, SETTINGS)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    planned = plan_model(
        str(pico_llama), recipe=str(tmp_path / "recipe.yaml"), calibration=str(pico_text), requantize=True
    )
    assert planned_seconds(source, recipe) == pytest.approx(planned.seconds)
    assert seconds_with_room(source, recipe, tmp_path, "cpu") == pytest.approx(planned.seconds)


def test_a_cut_takes_what_its_passes_take(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    source = WeightSource.open(pico_llama)
    cut = {"name": "c", "passes": [{"pass": "narrow", "keep": 0.9}], "calibration": SETTINGS}
    assert cutting_seconds(source, SETTINGS) > 3 * planned_seconds(source, cut)


def test_what_has_no_room_is_refused(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WeightSource.open(pico_llama)
    space = space_of(source, None)
    recipe = recipe_of(space, (0,) * len(space.units), METHODS[0], SETTINGS)
    monkeypatch.setattr(planned_time, "available_memory", lambda _: 1_000_000)
    with pytest.raises(OutOfResource, match="are there"):
        seconds_with_room(source, recipe, tmp_path, "cpu")


def test_a_model_that_cannot_be_measured_here_is_refused_before_it_is_read(
    pico_llama: Path, pico_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planned_time, "available_memory", lambda _: 1_000_000)
    monkeypatch.setattr(CheckpointReader, "fingerprint", lambda *_: pytest.fail("the model was read"))
    wish = Wish(str(pico_llama), (Budget(DISK, 1e6),), str(pico_text), samples=16, length=32, threads=1)
    with pytest.raises(OutOfResource, match=r"^fit needs \d\.\d\d GB of memory, 0\.00 GB are there"):
        plan_fit(wish)


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert", "pico_t5", "pico_whisper", "vision"])
def test_every_kind_of_model_has_a_need(
    model: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = request.getfixturevalue("make_vision")(tmp_path / "m") if model == "vision" else None
    source = WeightSource.open(made or request.getfixturevalue(model))
    require_room_to_measure(source, 16, 32, "cpu")
    monkeypatch.setattr(planned_time, "available_memory", lambda _: 1_000_000)
    with pytest.raises(OutOfResource):
        require_room_to_measure(source, 16, 32, "cpu")
