"""Passes that make blocks narrower: shapes, budgets, what is left, and where the results load."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.errors import CheckpointError, RecipeError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, write_json
from torch import Tensor

Watched = Callable[..., AbstractContextManager[list[float]]]

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}


def outputs(model: Any) -> Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(ids)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state  # type: ignore[no-any-return]


def weights(source: WeightSource) -> int:
    return sum(linear.out_features * linear.in_features for linear in source.anatomy.linears())


def without(model: Path, pruned: WeightSource) -> Tensor:
    """The original's outputs with the columns of down and o set to zero that ``pruned``, unrepaired,
    lacks.
    """
    module, original = load_model(model), WeightSource.open(model)
    from edgepress.compress.model.anatomy import module_name

    for before, after in zip(original.anatomy.linears(), pruned.anatomy.linears(), strict=True):
        if before.role in ("o", "down") and after.in_features < before.in_features:
            whole, left = original.dense(before.name), pruned.dense(after.name)
            stays = (whole.T.unsqueeze(1) == left.T.unsqueeze(0)).all(-1).any(1)
            assert int(stays.sum()) == after.in_features
            module.get_submodule(module_name(original.anatomy, before.name)).weight.mul_(stays)  # type: ignore[operator]
    return outputs(module)


FAMILIES = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "opt",
    "phi",
    "bert",
    "roberta",
    "distilbert",
]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_cut_is_what_no_longer_counts(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
) -> None:
    """Unrepaired, a narrower model is the original with some columns at zero; no text is needed."""
    make = make_encoder if model_type in ("bert", "roberta", "distilbert") else make_decoder
    model = make(tmp_path / "m", model_type)
    step = {"widths": "uniform", "importance": "magnitude", "repair": "none", "keep": 0.7, "multiple": 16}
    out = compress_model(
        str(model), recipe=recipe(tmp_path, {"pass": "narrow", **step}), output=tmp_path / "o"
    )
    source = WeightSource.open(out)
    assert weights(source) <= 0.7 * weights(WeightSource.open(model))
    assert torch.allclose(outputs(load_model(out)), without(model, source), atol=2e-5)


@pytest.mark.parametrize("name", ["ffn", "heads", "narrow"])
def test_channels_behind_a_norm_are_refused_before_any_work(
    make_decoder: Callable[..., Path], tmp_path: Path, name: str, recipe: Callable[..., str]
) -> None:
    model = make_decoder(tmp_path / "m", "bitnet")
    with pytest.raises(RecipeError, match="norms inside"):
        compress_model(
            str(model), recipe=recipe(tmp_path, {"pass": name, "keep": 0.7}), output=tmp_path / "o"
        )


def test_query_heads_go_evenly_from_every_group(
    make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    model = make_decoder(tmp_path / "m", num_attention_heads=6, hidden_size=96)
    step = {"pass": "heads", "unit": "queries", "keep": 0.95, "widths": "uniform", "repair": "none"}
    source = WeightSource.open(run(model, pico_text, tmp_path, step))
    attention = source.anatomy.blocks[0].attention
    assert (attention.heads, attention.kv_heads) == (4, 2)
    assert torch.allclose(outputs(load_model(tmp_path / "o")), without(model, source), atol=2e-5)


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "reconstruction"])
def test_a_dead_channel_goes_first_and_costs_nothing(
    importance: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "m", num_hidden_layers=2)
    tensors = load_file(model / "model.safetensors")
    dead = torch.arange(0, 128, 4)
    for index in range(2):
        tensors[f"model.layers.{index}.mlp.down_proj.weight"][:, dead] = 0
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    step = {"pass": "ffn", "importance": importance, "keep": 0.84, "widths": "uniform"}
    out = run(model, pico_text, tmp_path, step)
    source = WeightSource.open(out)
    assert [block.mlp.up.out_features for block in source.anatomy.blocks] == [96, 96]
    assert torch.allclose(outputs(load_model(out)), outputs(load_model(model)), atol=1e-4)


@pytest.mark.parametrize("name", ["ffn", "heads", "narrow"])
def test_uniform_results_load_in_plain_transformers(
    name: str, pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    out = run(pico_llama, pico_text, tmp_path, {"pass": name, "keep": 0.84, "widths": "uniform"})
    config = read_json(out / "config.json")
    assert "edgepress_blocks" not in config
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert torch.allclose(outputs(plain), outputs(load_model(out)), atol=1e-5)


def test_a_uniform_encoder_loads_in_plain_transformers(
    pico_bert: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModel

    out = run(pico_bert, pico_text, tmp_path, {"pass": "ffn", "keep": 0.7, "widths": "uniform"})
    plain = AutoModel.from_pretrained(out, dtype=torch.float32, add_pooling_layer=False).eval()
    assert torch.allclose(outputs(plain), outputs(load_model(out)), atol=1e-5)


def test_unequal_blocks_are_listed_and_transformers_refuses_them(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    from transformers import AutoModelForCausalLM

    out = run(pico_llama, pico_text, tmp_path, {"pass": "ffn", "keep": 0.75, "multiple": 16})
    config, source = read_json(out / "config.json"), WeightSource.open(out)
    found = [block.mlp.up.out_features for block in source.anatomy.blocks]
    assert len(set(found)) > 1 and all(width % 16 == 0 for width in found)
    assert [entry["ffn"] for entry in config["edgepress_blocks"]] == found
    with pytest.raises(RuntimeError, match=r"mismatch"):
        AutoModelForCausalLM.from_pretrained(out)
    config["edgepress_blocks"][1]["ffn"] += 16
    write_json(out / "config.json", config)
    with pytest.raises(CheckpointError, match=r"layers\.1"):
        WeightSource.open(out)


@pytest.mark.parametrize("model", ["pico_llama", "pico_bert"])
def test_pruned_then_quantized_exports_with_parity(
    model: str, pico_text: Path, tmp_path: Path, request: pytest.FixtureRequest, run: Callable[..., Path]
) -> None:
    path: Path = request.getfixturevalue(model)
    narrow = {"pass": "narrow", "keep": 0.65, "multiple": 16}
    out = run(path, pico_text, tmp_path, narrow, {"pass": "gptq", "scheme": "W4A16-g16"})
    source = WeightSource.open(out)
    assert "edgepress_blocks" in source.reader.config
    assert all(isinstance(source.linear(linear.name), QTensor) for linear in source.anatomy.linears())
    bundle = export_bundle(out, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["float"]


def test_repair_helps(pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]) -> None:
    found = {}
    for repair in ("none", "least_squares"):
        step = {"pass": "ffn", "keep": 0.7, "widths": "uniform", "repair": repair}
        manifest = read_json(run(pico_llama, pico_text, tmp_path, step, name=repair) / "edgepress.json")
        found[repair] = manifest["steps"][0]["worst_error"], manifest["steps"][0]["damage"]["kl"]
    assert found["least_squares"][0] < 0.8 * found["none"][0]
    assert found["least_squares"][1] < found["none"][1]


def test_zeros_of_an_earlier_pass_stay(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    passes = {"pass": "magnitude", "pattern": "2:4"}, {"pass": "narrow", "keep": 0.8}
    out = run(pico_llama, pico_text, tmp_path, *passes, {"pass": "gptq", "scheme": "W4A16-g16"})
    before = WeightSource.open(run(pico_llama, pico_text, tmp_path, passes[0], name="first"))
    after = WeightSource.open(out)
    for one, other in zip(before.anatomy.linears(), after.anatomy.linears(), strict=True):
        dense = after.dense(other.name)
        zeros = float((dense == 0).float().mean())
        assert zeros >= 0.45 and one.role == other.role


def test_resume_after_a_kill_gives_the_same_bytes(
    pico_llama: Path, pico_text: Path, tmp_path: Path, watched: Watched, run: Callable[..., Path]
) -> None:
    passes = {"pass": "narrow", "keep": 0.7, "multiple": 16}, {"pass": "rtn", "scheme": "W4A16-g16"}
    whole = run(pico_llama, pico_text, tmp_path, *passes, name="whole")
    for _ in range(2):
        with watched("compressing blocks", kill_at=3):
            run(pico_llama, pico_text, tmp_path, *passes)
    with watched("compressing blocks") as done:
        out = run(pico_llama, pico_text, tmp_path, *passes)
    assert done == [0, 1, 1, 1]  # the second sweep alone
    assert hash_tree(out) == hash_tree(whole)


def test_the_plan_knows_the_shapes_that_later_passes_see(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], recipe: Callable[..., str]
) -> None:
    passes = {"pass": "ffn", "keep": 0.7, "widths": "uniform"}, {"pass": "rtn", "scheme": "W4A16-g16"}
    plan = plan_model(
        str(pico_llama), recipe=recipe(tmp_path, *passes), calibration=str(pico_text), samples=16, length=32
    )
    written = (run(pico_llama, pico_text, tmp_path, *passes) / "model.safetensors").stat().st_size
    assert plan.result_bytes == pytest.approx(written, rel=0.1)
    assert plan.steps[1].weights < plan.steps[0].weights + 3 * 64 * 64 * 3
    assert plan.peak_memory > 0


def test_blocks_keep_what_is_given(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], recipe: Callable[..., str]
) -> None:
    step = {"pass": "narrow", "widths": {"1": {"heads": 1, "ffn": 96}, "2": {"ffn": 32}}}
    passes = step, {"pass": "gptq", "scheme": "W4A16-g32"}
    out = run(pico_llama, pico_text, tmp_path, *passes)
    sizes = [
        {"ffn": 128, "heads": 4, "kv_heads": 2},
        {"ffn": 96, "heads": 2, "kv_heads": 1},
        {"ffn": 32, "heads": 4, "kv_heads": 2},
    ]
    assert read_json(out / "config.json")["edgepress_blocks"] == sizes
    planned = recipe(tmp_path, *passes)
    plan = plan_model(str(pico_llama), recipe=planned, calibration=str(pico_text), samples=16, length=32)
    left = WeightSource.open(out)
    assert plan.steps[0].bytes_after == pytest.approx(
        plan.steps[0].bytes_before * weights(left) / weights(WeightSource.open(pico_llama)), rel=1e-3
    )


@pytest.mark.parametrize("keep", [0.9, 0.8, 0.6])
def test_the_plan_of_solved_widths_is_as_large_as_what_is_kept(
    keep: float,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    recipe: Callable[..., str],
) -> None:
    three = {"num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 96, "num_hidden_layers": 6}
    step = {"pass": "narrow", "keep": keep, "multiple": 4}
    model = str(make_decoder(tmp_path / "m", **three))
    text: dict[str, Any] = {"calibration": str(pico_text), "samples": 16, "length": 32}
    plan = plan_model(model, recipe=recipe(tmp_path, step), **text)
    assert plan.steps[0].bytes_after / plan.steps[0].bytes_before == pytest.approx(keep, rel=0.02)


@pytest.mark.parametrize(
    ("passes", "error", "match"),
    [
        ([{"pass": "heads", "keep": 0.5}], RecipeError, "more than all that may go"),
        ([{"pass": "ffn", "keep": 0.8, "targets": ["q"]}], RecipeError, "match no layer that it works on"),
        (
            [{"pass": "ffn", "keep": 0.7, "multiple": 16}, {"pass": "rtn", "scheme": "W4A16-g32"}],
            ShapeError,
            "divide",
        ),
        ([{"pass": "ffn", "keep": 1.5}], RecipeError, "keep"),
        ([{"pass": "narrow"}], RecipeError, "keep, or the units of blocks"),
        ([{"pass": "narrow", "keep": 0.8, "widths": {"1": {"ffn": 64}}}], RecipeError, "and not both"),
        ([{"pass": "narrow", "widths": {"7": {"ffn": 64}}}], RecipeError, "block 7, which loses none"),
        ([{"pass": "narrow", "widths": {"1": {"ffn": 65}}}], RecipeError, "cannot keep 65 of 128 ffn"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    pico_llama: Path,
    tmp_path: Path,
    passes: list[dict[str, Any]],
    error: type[Exception],
    match: str,
    recipe: Callable[..., str],
) -> None:
    with pytest.raises(error, match=match):
        plan_model(str(pico_llama), recipe=recipe(tmp_path, *passes))
