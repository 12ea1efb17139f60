"""DeepSeek-V3: latent attention and its router against transformers' modules, what is refused, whole runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.family import anatomy_of
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError, RecipeError
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json
from torch import nn

Watched = Callable[..., AbstractContextManager[list[float]]]


@pytest.fixture
def model(make_decoder: Callable[..., Path], tmp_path: Path) -> Path:
    return make_decoder(tmp_path / "m", "deepseek_v3")


def test_the_anatomy_is_that_of_transformers(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(model)
    source = WeightSource.open(model)
    for block, layer in zip(source.anatomy.blocks, theirs.model.layers, strict=True):
        attention, latent = block.attention, block.attention.latent
        assert latent is not None and latent.q_a is not None and latent.q_a_norm is not None
        linears = [latent.q_a, attention.q, latent.kv_a, latent.kv_b, attention.o]
        held = {name for name, part in layer.self_attn.named_modules() if isinstance(part, nn.Linear)}
        assert {linear.name.rpartition(".")[2] for linear in linears} == held
        for linear in linears:
            part = theirs.get_submodule(linear.name)
            assert (part.out_features, part.in_features) == (linear.out_features, linear.in_features)
        for norm in (latent.q_a_norm, latent.kv_a_norm):
            assert theirs.get_submodule(norm.name).variance_epsilon == norm.eps
        assert (attention.heads, attention.kv_heads, attention.head_dim) == (4, 4, 32)
        assert attention.scale == pytest.approx(layer.self_attn.scaling)
        experts = block.experts
        assert (experts is None) == (block.index < theirs.config.first_k_dense_replace)
        if experts is None:
            continue
        form, gate = experts.router_form, layer.mlp.gate
        assert form is not None and experts.shared is not None and experts.shared_gate is None
        assert (form.groups, form.chosen_groups) == (gate.num_group, gate.topk_group)
        assert (form.scale, experts.normalized) == (gate.routed_scaling_factor, gate.norm_topk_prob)
        assert torch.equal(source.tensor(form.correction), gate.e_score_correction_bias)
        ours = load_model(model).get_buffer(form.correction)
        assert torch.equal(ours, gate.e_score_correction_bias) and bool(ours.any())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_key_value_heads": 2}, "as many key/value heads as query heads"),
        ({"v_head_dim": 64}, "v_head_dim 64 is more than the 32 channels"),
        ({"n_group": 3}, "cannot be chosen"),
        ({"n_group": 8}, "cannot be chosen"),
        ({"topk_group": 1}, "cannot be chosen"),
        ({"topk_group": 5}, "cannot be chosen"),
        ({"routed_scaling_factor": 0}, "routed_scaling_factor must be a positive number"),
        ({"kv_lora_rank": 24}, "has shape"),
        ({"qk_rope_head_dim": 15}, "it needs pairs"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], text: str, model: Path) -> None:
    source = WeightSource.open(model)
    with pytest.raises(CheckpointError, match=text):
        anatomy_of(source.reader.config | changes, source.shapes)


@pytest.mark.parametrize("dense", [False, True])
def test_what_latent_attention_cannot_do_is_refused_before_any_work(
    dense: bool, make_decoder: Callable[..., Path], tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "deepseek_v3", first_k_dense_replace=3 if dense else 1)
    assert WeightSource.open(model).anatomy.has_experts != dense
    steps: list[dict[str, Any]] = [{"pass": "width", "keep": 0.7}, {"pass": "narrow", "keep": 0.7}]
    steps += [{"pass": "kv_cache"}, {"pass": "qat", "scheme": "W4A16-g16", "kv": "int8"}]
    for step in steps:
        with pytest.raises(RecipeError, match="latent attention" if dense else "latent|mixture of experts"):
            plan_model(str(model), recipe=recipe(tmp_path, step))
    if not dense:
        with pytest.raises(RecipeError, match="of 4 groups"):
            plan_model(str(model), recipe=recipe(tmp_path, {"pass": "experts", "keep": 0.4}))
        with pytest.raises(RecipeError, match="some have none"):
            plan_model(str(model), recipe=recipe(tmp_path, {"pass": "layers", "keep": 0.7, "repair": "none"}))


@pytest.mark.chain
def test_each_expert_is_solved_from_the_tokens_that_come_to_it(
    model: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    out = run(model, pico_text, tmp_path, {"pass": "gptq", "scheme": "W4A16-g16"})
    layers = {layer["name"]: layer for layer in read_json(out / "edgepress.json")["layers"]}
    found = WeightSource.open(out)
    assert {linear.name for linear in found.anatomy.linears()} == found.schemes.keys()
    for block in found.anatomy.blocks:
        names = [linear.name for linear in block.expert_linears()]
        seen = [int(layers[name]["detail"].split(" ")[0]) for name in names[::3]]
        assert sum(seen) == (3 * 16 * 32 if block.experts is not None else 0)
        others = {linear.name for linear in block.linears()} - set(names)
        assert {layers[name]["status"] for name in others} <= {"ok", "damped"}


@pytest.mark.chain
def test_a_killed_run_goes_on_with_the_same_bytes(
    model: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], watched: Watched
) -> None:
    step = {"pass": "gptq", "scheme": "W4A16-g16"}
    expected = hash_tree(run(model, pico_text, tmp_path, step))
    with watched("compressing blocks", kill_at=3):
        run(model, pico_text, tmp_path, step, name="killed")
    assert hash_tree(run(model, pico_text, tmp_path, step, name="killed")) == expected
