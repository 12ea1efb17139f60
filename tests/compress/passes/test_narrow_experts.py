"""Experts with fewer channels: each loses its own, all as many, and the config says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block import Block
from edgepress.compress.prune.structured.part_pruning import UnitPruning, kept_units
from edgepress.compress.prune.structured.units import ChannelUnits
from edgepress.errors import RecipeError
from edgepress.storage import read_json
from torch import Tensor

FOUR: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIZES: dict[str, dict[str, Any]] = {
    "qwen2_moe": FOUR | {"shared_expert_intermediate_size": 64},
    "gpt_oss": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
STEP: dict[str, Any] = {"pass": "narrow", "parts": ["mlp"], "widths": "uniform", "multiple": 8, "keep": 0.8}
_SLOW = [pytest.mark.slow]


def test_each_expert_keeps_what_its_own_tokens_need(
    make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    source = WeightSource.open(make_decoder(tmp_path / "m", "gpt_oss"))
    anatomy, model = source.anatomy.blocks[0], load_model(source.reader.path)
    linears: Any = {linear.name: model.get_submodule(linear.name) for linear in anatomy.linears()}
    block = Block(anatomy, model.get_submodule(anatomy.prefix), linears)
    generator = torch.Generator().manual_seed(0)
    readers = [mlp.down for mlp in anatomy.expert_mlps()]
    inputs: dict[str, dict[str, Tensor]] = {}
    for reader in readers:
        size = torch.where(torch.rand(reader.in_features, generator=generator) < 0.5, 0.1, 3.0)
        rows = torch.randn(200, reader.in_features, generator=generator) * size
        inputs[reader.name] = {"gram": rows.T @ rows / len(rows), "mean": rows.mean(0)}
    block.collector = lambda *_: inputs
    part, count = ChannelUnits(8), 16
    expected = []
    for reader, mlp in zip(readers, anatomy.expert_mlps(), strict=True):
        alone = replace(block, anatomy=replace(anatomy, experts=None, feed_forward=mlp))
        kept = kept_units(alone, part, count, "reconstruction", inputs[reader.name], {}, 0.1)
        assert kept is not None and mlp.gate_up is not None
        both = block.weight(mlp.gate_up)
        expected.append((both[::2][kept], both[1::2][kept]))
    UnitPruning(
        step="narrow",
        parts=(part,),
        widths={(0, "ffn"): count},
        importance="reconstruction",
        repair="least_squares",
        damping=0.1,
        losses={},
    ).apply(block)
    assert len({tuple(gate.flatten().tolist()) for gate, _ in expected}) == len(readers)
    assert [mlp.down.in_features for mlp in block.anatomy.expert_mlps()] == [count] * len(readers)
    for (gate, up), mlp in zip(expected, block.anatomy.expert_mlps(), strict=True):
        assert mlp.gate_up is not None
        both = block.weight(mlp.gate_up)
        assert torch.equal(both[::2], gate) and torch.equal(both[1::2], up)
    block.check("narrow")


@pytest.mark.chain
@pytest.mark.parametrize(
    "family", ["qwen2_moe", *(pytest.param(name, marks=_SLOW) for name in list(SIZES)[1:])]
)
def test_narrow_experts_load_in_plain_transformers_and_beat_magnitude(
    family: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", family, **SIZES[family])
    out = run(model, pico_text, tmp_path, STEP)
    plain = {**STEP, "importance": "magnitude", "repair": "none"}
    other = run(model, pico_text, tmp_path, plain, name="plain")
    assert distance(model, out, pico_text) < distance(model, other, pico_text)
    before, after = (WeightSource.open(path).anatomy.blocks[0].mlp.up.out_features for path in (model, out))
    assert after < before and after % 8 == 0
    config = read_json(out / "config.json")
    assert config["moe_intermediate_size" if family == "qwen2_moe" else "intermediate_size"] == after
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, load_model(out)(ids).logits, atol=1e-5)
    layers = [layer for layer in read_json(out / "edgepress.json")["layers"] if ".experts." in layer["name"]]
    assert layers and all("token" in layer["detail"] for layer in layers)


def test_what_narrow_cannot_do_to_experts_is_refused_before_any_work(
    make_decoder: Callable[..., Path], tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "qwen2_moe", **SIZES["qwen2_moe"])
    dense = make_decoder(tmp_path / "d", "qwen3_moe", **FOUR, mlp_only_layers=[1])
    latent = make_decoder(tmp_path / "l", "deepseek_v3", first_k_dense_replace=0)
    for path, change, text in (
        (model, {"widths": "solved"}, r"parts: \[mlp\]"),
        (model, {"parts": ["attention", "mlp"]}, r"parts: \[mlp\]"),
        (model, {"correction": 1.0}, "no correction"),
        (dense, {}, "some have none"),
        (latent, {}, "shared expert"),
    ):
        with pytest.raises(RecipeError, match=text):
            plan_model(str(path), recipe=recipe(tmp_path, STEP | change))
