"""Groups that do not divide are refused from config and headers, in the words of the plan."""

import os
import shutil
from pathlib import Path

import pytest
from edgepress import compress_model
from edgepress.compress.api import plan_model
from edgepress.compress.group_sizes import check_scheme
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import ShapeError

WIDE = Scheme.parse("W4A16-g128")


def test_a_scheme_that_does_not_fit_is_refused_in_the_words_of_the_plan(
    pico_llama: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W4A16-g128}]")
    with pytest.raises(ShapeError) as early:
        plan_model(str(pico_llama), scheme="W4A16-g128")
    with pytest.raises(ShapeError) as planned:
        plan_model(str(pico_llama), recipe=str(recipe))
    assert early.value.what == planned.value.what.replace("pass rtn", "W4A16-g128")
    assert early.value.fix == planned.value.fix


def test_what_fits_or_cannot_be_known_yet_is_left_to_the_plan(pico_llama: Path, tmp_path: Path) -> None:
    for scheme in ("W4A16-g16", "W4A16-channel", "FP8_DYNAMIC"):
        check_scheme(str(pico_llama), Scheme.parse(scheme))
    compress_model(str(pico_llama), scheme="W4A16-g32", output=tmp_path / "small")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    for model in ("small", "empty", "damaged", "absent"):
        check_scheme(str(tmp_path / model), WIDE)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
@pytest.mark.timeout(30)
def test_a_pipe_among_the_weights_is_not_waited_for(pico_llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    shutil.copytree(pico_llama, model)
    os.mkfifo(model / "weights.safetensors")
    check_scheme(str(model), Scheme.parse("W4A16-g32"))
