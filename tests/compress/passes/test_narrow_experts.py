"""Experts with fewer channels, each its own and all as many, and fewer heads: the config says so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.anatomy import module_name
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.pipeline.block import Block
from edgepress.compress.prune.structured.part_pruning import UnitPruning, kept_units
from edgepress.compress.prune.structured.units import ChannelUnits
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from safetensors.torch import load_file, save_file
from torch import Tensor

FOUR: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SIZES: dict[str, dict[str, Any]] = {
    "qwen2_moe": FOUR | {"shared_expert_intermediate_size": 64},
    "gpt_oss": {},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
STEP: dict[str, Any] = {"pass": "narrow", "parts": ["mlp"], "widths": "uniform", "multiple": 8, "keep": 0.8}
_SLOW = [pytest.mark.slow]
EACH = ["qwen2_moe", *(pytest.param(name, marks=_SLOW) for name in list(SIZES)[1:])]
BOTH = ("attention", "mlp")
EIGHT: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}
IDS = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def plain(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def without(model: Path, cut: WeightSource) -> Tensor:
    """The original's logits with the columns of down and o at zero that ``cut``, unrepaired, lacks."""
    module, original = load_model(model), WeightSource.open(model)
    for before, after in zip(original.anatomy.linears(), cut.anatomy.linears(), strict=True):
        if after.in_features < before.in_features:
            whole, left = original.dense(before.name), cut.dense(after.name)
            stays = (whole.T.unsqueeze(1) == left.T.unsqueeze(0)).all(-1).any(1)
            assert int(stays.sum()) == after.in_features
            module.get_submodule(module_name(original.anatomy, before.name)).weight.mul_(stays)  # type: ignore[operator]
    return logits(module)


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
@pytest.mark.parametrize("unit", ["groups", "queries"])
@pytest.mark.parametrize("parts", [("attention",), BOTH])
@pytest.mark.parametrize("family", EACH)
def test_what_is_cut_of_heads_and_experts_is_what_no_longer_counts(
    family: str,
    parts: tuple[str, ...],
    unit: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    model = make_decoder(tmp_path / "m", family, **SIZES[family] | EIGHT)
    step = STEP | {"parts": parts, "unit": unit, "keep": 0.95, "importance": "magnitude", "repair": "none"}
    out = run(model, pico_text, tmp_path, step)
    source = WeightSource.open(out)
    attention = source.anatomy.blocks[0].attention
    assert attention.heads < 8 and attention.kv_heads == (attention.heads // 2 if unit == "groups" else 4)
    found = logits(load_model(out))
    assert torch.allclose(found, without(model, source), atol=2e-5)
    assert torch.allclose(found, logits(plain(out)), atol=1e-5)
    width = source.anatomy.blocks[0].mlp.up.out_features
    assert (width < WeightSource.open(model).anatomy.blocks[0].mlp.up.out_features) == ("mlp" in parts)


@pytest.mark.chain
def test_heads_go_where_some_blocks_have_no_experts(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    model = make_decoder(tmp_path / "m", "qwen3_moe", **FOUR | EIGHT, mlp_only_layers=[1])
    out = run(model, pico_text, tmp_path, STEP | {"parts": ["attention"], "keep": 0.9})
    before, after = (read_json(path / "config.json") for path in (model, out))
    sizes = [(one["intermediate_size"], one["moe_intermediate_size"]) for one in (before, after)]
    assert sizes[0] == sizes[1] and after["num_key_value_heads"] < 4
    assert torch.allclose(logits(plain(out)), logits(load_model(out)), atol=1e-5)


@pytest.mark.chain
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen2_moe", {"widths": "solved"}),
        ("qwen2_moe", {"importance": "taylor"}),
        ("qwen2_moe", {"correction": 1.0}),
        pytest.param("gpt_oss", {"widths": "solved", "importance": "taylor"}, marks=_SLOW),
    ],
)
def test_heads_that_give_nothing_go_first(
    family: str,
    options: dict[str, Any],
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    """Half of the groups of each block, or where blocks may differ most of those of one."""
    model = make_decoder(tmp_path / "m", family, **SIZES[family] | EIGHT)
    tensors = load_file(model / "model.safetensors")
    solved = "widths" in options
    dead = {0: [0, 2, 3]} if solved else {index: [1, 2] for index in range(3)}
    for index, groups in dead.items():
        for group in groups:
            tensors[f"model.layers.{index}.self_attn.o_proj.weight"][:, 32 * group : 32 * (group + 1)] = 0
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    lost = 3 * 6144 if solved else 6 * 6144
    total = sum(one.out_features * one.in_features for one in WeightSource.open(model).anatomy.linears())
    step = STEP | {"parts": ["attention"], "keep": 1 - lost / total + 1e-6} | options
    out = run(model, pico_text, tmp_path, step)
    source = WeightSource.open(out)
    heads = [block.attention.heads for block in source.anatomy.blocks]
    assert heads == ([2, 8, 8] if solved else [4, 4, 4])
    assert torch.allclose(logits(load_model(out)), logits(load_model(model)), atol=1e-4)


@pytest.mark.chain
@pytest.mark.parametrize("family", ["qwen2_moe", pytest.param("gpt_oss", marks=_SLOW)])
def test_a_mixture_of_fewer_heads_and_channels_exports(
    family: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = make_decoder(tmp_path / "m", family, **SIZES[family] | EIGHT)
    out = run(model, pico_text, tmp_path, STEP | {"parts": BOTH})
    other = STEP | {"parts": BOTH, "importance": "magnitude", "repair": "none"}
    other_out = run(model, pico_text, tmp_path, other, name="plain")
    assert distance(model, out, pico_text) < distance(model, other_out, pico_text)
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"


@pytest.mark.chain
@pytest.mark.parametrize("family", EACH)
def test_narrow_experts_load_in_plain_transformers_and_beat_magnitude(
    family: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    model = make_decoder(tmp_path / "m", family, **SIZES[family])
    out = run(model, pico_text, tmp_path, STEP)
    unfitted = {**STEP, "importance": "magnitude", "repair": "none"}
    other = run(model, pico_text, tmp_path, unfitted, name="plain")
    assert distance(model, out, pico_text) < distance(model, other, pico_text)
    before, after = (WeightSource.open(path).anatomy.blocks[0].mlp.up.out_features for path in (model, out))
    assert after < before and after % 8 == 0
    config = read_json(out / "config.json")
    assert config["moe_intermediate_size" if family == "qwen2_moe" else "intermediate_size"] == after
    assert torch.allclose(logits(plain(out)), logits(load_model(out)), atol=1e-5)
    layers = [layer for layer in read_json(out / "edgepress.json")["layers"] if ".experts." in layer["name"]]
    assert layers and all("token" in layer["detail"] for layer in layers)


def test_what_narrow_cannot_do_to_experts_is_refused_before_any_work(
    make_decoder: Callable[..., Path], tmp_path: Path, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "qwen2_moe", **SIZES["qwen2_moe"])
    dense = make_decoder(tmp_path / "d", "qwen3_moe", **FOUR, mlp_only_layers=[1])
    whole = make_decoder(tmp_path / "w", "olmoe", num_experts=4, num_experts_per_tok=2)
    latent = make_decoder(tmp_path / "l", "deepseek_v3", first_k_dense_replace=0)
    for path, change, text in (
        (model, {"widths": "solved"}, r"parts: \[attention\]"),
        (model, {"parts": BOTH, "importance": "taylor"}, r"parts: \[attention\]"),
        (model, {"correction": 1.0}, "no correction"),
        (dense, {}, "some have none"),
        (latent, {}, "shared expert"),
        (latent, {"parts": ["attention"]}, "narrow state"),
        (whole, {"parts": ["attention"]}, "over all heads"),
    ):
        with pytest.raises(RecipeError, match=text):
            plan_model(str(path), recipe=recipe(tmp_path, STEP | change))
