"""The recipe that is asked for, for one model and another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.asked_recipe import AskedRecipe, _targets, limited, recipe_for
from edgepress.compress.model.anatomy import Anatomy
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.recipe import load_recipe, parse
from edgepress.errors import RecipeError, ShapeError
from edgepress.files.storage import read_json

from ..conftest import save_decoder

PASSES: list[dict[str, Any]] = [
    {"pass": "prune", "score": "magnitude", "sparsity": 0.5},
    {"pass": "distill", "training": {"max_time": 90, "micro_batch_tokens": 32, "batch_tokens": 64}},
    {"pass": "rtn", "scheme": "W4A16-g32"},
    {"pass": "tune", "training": {"micro_batch_tokens": 32, "batch_tokens": 64}},
]


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


@pytest.fixture(scope="module")
def anatomy(pico_llama: Path) -> Anatomy:
    """Linears with 64 and 128 inputs."""
    return WeightSource.open(pico_llama).anatomy


def test_the_short_way(anatomy: Anatomy) -> None:
    def asked(scheme: str, *, group_size: int | None = None, text: bool = True) -> str:
        return recipe_for(scheme, group_size=group_size, calibrated=text, anatomy=anatomy).summary

    assert asked("W4A16", text=False) == "W4A16-g64 rtn" and asked("int4") == "W4A16-g64 gptq"
    assert asked("W4A16", group_size=32) == asked("W4A16-g32") == asked("Q4_0") == "W4A16-g32 gptq"
    assert asked("W4A16-channel") == "W4A16-channel gptq"
    assert asked("int8") == "W8A8" and asked("W8A8_STATIC").startswith("W8A8_STATIC")
    assert asked("FP8").endswith("rtn") and asked("NVFP4").endswith("gptq")
    with pytest.raises(RecipeError, match="7"):
        asked("W4A16", group_size=7)
    with pytest.raises(RecipeError, match="group size 64"):
        asked("NVFP4", group_size=64)


def test_the_plan_tells_the_groups_that_it_chose(
    pico_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "W4A16 with groups of 64, the largest that divide every layer (64 and 128 inputs)"
    assert plan_model(str(pico_llama), scheme="W4A16").notes[0] == told
    assert told not in plan_model(str(pico_llama), scheme="W4A16-g32").notes
    assert run(["compress", str(pico_llama), "--scheme", "w4a16", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "W4A16-g64" in shown.out and "with groups of 64" in shown.out and told in shown.err


@pytest.mark.parametrize("options", [{"scheme": "W4A16-g128"}, {"scheme": "W4A16", "group_size": 128}])
def test_groups_that_are_asked_for_and_do_not_fit_are_refused(
    options: dict[str, str], pico_llama: Path
) -> None:
    with pytest.raises(ShapeError, match="group size 128 does not divide 18 layers with 64 inputs"):
        plan_model(str(pico_llama), **options)  # type: ignore[arg-type]


@pytest.mark.chain
def test_where_no_group_fits_all_each_layer_has_its_own(tmp_path: Path, pico_text: Path) -> None:
    model = save_decoder(tmp_path / "odd", intermediate_size=136)
    plan = plan_model(str(model), scheme="W4A16")
    assert plan.notes[0].endswith("groups of 64 for 18 layers, one scale per channel for 3 layers")
    assert [(step.scheme, step.layers) for step in plan.steps] == [("W4A16-g64", 18), ("W4A16-channel", 3)]
    text = {"calibration": str(pico_text), "samples": 4, "length": 32}
    out = compress_model(str(model), output=tmp_path / "out", scheme="W4A16", **text)  # type: ignore[arg-type]
    schemes = WeightSource.open(out).schemes
    assert schemes["model.layers.1.mlp.down_proj"].group_size is None
    assert {schemes[f"model.layers.1.mlp.{name}_proj"].group_size for name in ("up", "gate")} == {64}


def test_layers_of_one_role_and_two_widths_are_named_without_the_numbers_of_blocks_and_experts(
    tmp_path: Path,
) -> None:
    sizes = {"hidden_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
    model = save_decoder(tmp_path / "m", "qwen2_moe", **sizes, shared_expert_intermediate_size=256)
    anatomy = WeightSource.open(model).anatomy
    recipe = recipe_for("Q4_K", group_size=None, calibrated=False, anatomy=anatomy)
    small = recipe.passes[1].options.model_dump()["targets"]
    assert small == ("model.layers.*.mlp.experts.*.down_proj", "model.layers.*.self_attn.o_proj")
    chosen = [step.selected(anatomy) for _, step in recipe.steps]
    assert [{linear.in_features % 256 for linear in linears} for linears in chosen] == [{0}, {96, 64}]
    assert sum(map(len, chosen)) == len(list(anatomy.linears()))
    # A name of which another layer differs by its number alone is said in full.
    first = [linear for linear in anatomy.linears() if linear.name.startswith("model.layers.0.mlp.shared")]
    assert _targets(first[-1:], anatomy) == ["model.layers.0.mlp.shared_expert.down_proj"]


def test_the_embedding_has_groups_that_fit(tmp_path: Path) -> None:
    for width, expected in ((64, "W8A16-g32"), (80, "W8A16-g16"), (72, None)):
        model = save_decoder(tmp_path / str(width), hidden_size=width)
        anatomy = WeightSource.open(model).anatomy
        found = recipe_for("W4A16", group_size=None, calibrated=False, anatomy=anatomy)
        assert found.embedding == expected


@pytest.mark.chain
def test_all_that_learn_have_the_bound_and_nothing_else_changes() -> None:
    recipe = parse({"name": "r", "passes": PASSES}, "here")
    bounded = limited(recipe, 2.5)
    expected: list[dict[str, Any]] = [dict(entry) for entry in PASSES]
    for entry in expected:
        if "training" in entry:
            entry["training"] = entry["training"] | {"max_time": 2.5}
    assert bounded == parse({"name": "r", "passes": expected}, "here")
    assert bounded.sha256 != recipe.sha256


@pytest.mark.chain
@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_minutes_are_more_than_none(minutes: float) -> None:
    with pytest.raises(RecipeError, match="no time"):
        limited(load_recipe("best"), minutes)


@pytest.mark.chain
def test_a_recipe_that_does_not_learn_refuses_it(
    pico_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compress", str(pico_llama), "-r", "w4a16-rtn", "--max-time", "5", "-o", str(tmp_path / "o")]
    assert run(arguments) == 2
    assert "--max-time bounds passes that learn" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.chain
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
