"""gpt-oss: its anatomy against transformers' modules, its experts in one tensor and apart, and whole runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RecipeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from safetensors import safe_open

Watched = Callable[..., AbstractContextManager[list[float]]]
RTN = {"pass": "rtn", "scheme": "W4A16-g16"}


@pytest.fixture
def model(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "m", "gpt_oss")


def names_in(path: Path) -> set[str]:
    with safe_open(path / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_the_anatomy_is_that_of_transformers(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(model)
    source = WeightSource.open(model)
    for block, layer in zip(source.anatomy.blocks, theirs.model.layers, strict=True):
        attention, experts, mlp = block.attention, block.experts, block.mlp
        assert attention.sliding_window == layer.self_attn.sliding_window
        assert attention.sinks is not None and experts is not None and mlp.gate_up is not None
        assert torch.equal(source.tensor(attention.sinks), layer.self_attn.sinks)
        held = layer.mlp.experts
        assert (experts.count, experts.chosen) == (held.num_experts, layer.mlp.router.top_k)
        assert (mlp.limit, mlp.up_offset) == (held.limit, 1.0)
        for index, expert in enumerate(block.expert_mlps()):
            assert expert.gate_up is not None
            assert torch.equal(source.dense(expert.gate_up.name), held.gate_up_proj[index].T)
            assert torch.equal(source.dense(expert.down.name), held.down_proj[index].T)
            for linear, bias in (
                (expert.gate_up, held.gate_up_proj_bias),
                (expert.down, held.down_proj_bias),
            ):
                found = source.bias(linear.name)
                assert linear.bias and found is not None and torch.equal(found, bias[index])
    assert [block.attention.sliding_window for block in source.anatomy.blocks] == [24, None, 24]


def test_what_differs_from_the_family_is_refused(model: Path) -> None:
    source = WeightSource.open(model)
    config, shapes = source.reader.config, source.shapes
    with pytest.raises(CheckpointError, match=r"swiglu_alpha 1\.5 is not supported"):
        anatomy_of(config | {"swiglu_alpha": 1.5}, shapes)
    with pytest.raises(CheckpointError, match="swiglu_limit must be a positive number"):
        anatomy_of(config | {"swiglu_limit": 0}, shapes)
    with pytest.raises(CheckpointError, match="without a sliding_window"):
        anatomy_of(config | {"sliding_window": None}, shapes)
    odd = "model.layers.0.mlp.experts.0.gate_up_proj.weight"
    with pytest.raises(CheckpointError, match="rows"):
        anatomy_of(config, shapes | {odd: (63, 64)})
    without = {name: shape for name, shape in shapes.items() if not name.endswith("sinks")}
    with pytest.raises(CheckpointError, match="sinks"):
        anatomy_of(config, without)


def test_what_its_experts_cannot_do_is_refused_before_any_work(
    model: Path, tmp_path: Path, recipe: Callable[..., str]
) -> None:
    for step, text in (
        ({"pass": "experts", "keep": 0.1}, "a token takes"),
        ({"pass": "width", "keep": 0.7}, "mixture of experts"),
        ({"pass": "narrow", "keep": 0.7}, "mixture of experts"),
    ):
        with pytest.raises(RecipeError, match=text):
            plan_model(str(model), recipe=recipe(tmp_path, step))


@pytest.mark.chain
def test_each_expert_is_solved_from_the_tokens_that_come_to_it(
    model: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    out = run(model, pico_text, tmp_path, {"pass": "gptq", "scheme": "W4A16-g16"})
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    for block in WeightSource.open(out).anatomy.blocks:
        names = [linear.name for linear in block.expert_linears()]
        assert len(names) == 2 * 6
        seen = [int(layers[name]["detail"].split(" ")[0]) for name in names[::2]]
        assert sum(seen) == 2 * 16 * 32


@pytest.mark.chain
def test_experts_in_float_stay_one_tensor_and_codes_are_stored_by_expert(
    model: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    attention = {**RTN, "targets": ["q", "k", "v", "o"]}
    before, out = names_in(model), names_in(run(model, pico_text, tmp_path, attention, name="attention"))
    assert {name for name in before if ".mlp." in name} == {name for name in out if ".mlp." in name}
    codes = names_in(run(model, pico_text, tmp_path, RTN))
    assert "model.layers.0.mlp.experts.5.gate_up_proj.weight_packed" in codes
    assert "model.layers.0.mlp.experts.gate_up_proj_bias" in codes
    assert "model.layers.0.mlp.experts.gate_up_proj" not in codes


@pytest.mark.chain
def test_a_killed_run_goes_on_with_the_same_bytes(
    model: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], watched: Watched
) -> None:
    step = {"pass": "gptq", "scheme": "W4A16-g16"}
    expected = hash_tree(run(model, pico_text, tmp_path, step))
    with watched("compressing blocks", kill_at=3):
        run(model, pico_text, tmp_path, step, name="killed")
    assert hash_tree(run(model, pico_text, tmp_path, step, name="killed")) == expected
