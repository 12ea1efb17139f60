"""Fewer layers: which go, what compensates for them, and what the result is."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import plan_model
from edgepress.compress.model.block_anatomy import Linear
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.passes.layers import Layers
from edgepress.compress.pipeline.block_inputs import Stream
from edgepress.compress.pipeline.capture import BatchContext
from edgepress.compress.prune.structured.layer_removal import lowest, shortest_runs, turning
from edgepress.compress.prune.structured.residual_fit import ResidualError
from edgepress.compress.text.calibration import calibration_from
from edgepress.errors import RecipeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from edgepress.runtime.text.tokenizer import Tokenizer
from torch import Tensor

pytestmark = pytest.mark.chain


CALIBRATED: dict[str, Any] = {"samples": 16, "length": 32}


def outputs(model: Any) -> Tensor:
    ids = torch.randint(5, 110, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(ids)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state  # type: ignore[no-any-return]


def details(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path / "edgepress.json")["steps"][0]["details"]
    return found


def test_the_lowest_influence_goes_and_the_shortest_runs_compete(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(20, 6, generator=generator)]
    for size in (1.0, 0.2, 0.5, 0.1, 0.4):
        states.append(states[-1] + size * torch.randn(20, 6, generator=generator))
    stream = Stream(tmp_path, [BatchContext([], None), BatchContext([], None)], torch.device("cpu"))
    for block, rows in enumerate(states):
        for number, part in enumerate(rows.unsqueeze(0).split(12, 1)):
            stream.write(block, number, part)
    influence = []
    for before, after in pairwise(states):
        cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(before, after, strict=True)]
        influence.append(1 - sum(cosines) / len(cosines))
    scores = [turning(stream, block, block + 1) for block in range(5)]
    assert scores == pytest.approx(influence, abs=1e-5)
    found = lowest(scores, [range(5)], lambda removed: len(removed) >= 2)
    assert found.removed == sorted(sorted(range(5), key=lambda index: influence[index])[:2])
    assert shortest_runs([range(5)], lambda removed: len(removed) >= 2) == [[0, 1], [1, 2], [2, 3], [3, 4]]


def test_runs_are_scored_by_the_states_of_the_whole_model(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    step = {"pass": "layers", "keep": 0.4, "criterion": "contiguous", "repair": "none"}
    out = run(pico_llama, pico_text, tmp_path, step)
    model, states = load_model(pico_llama), list[list[Tensor]]()
    blocks = model.get_submodule("model.layers")
    for block in blocks:  # type: ignore[attr-defined]
        block.register_forward_pre_hook(lambda _, args: states[-1].append(args[0].flatten(0, 1)))
    blocks[-1].register_forward_hook(lambda _, args, out: states[-1].append(out.flatten(0, 1)))  # type: ignore[index]
    text = Tokenizer.open(pico_llama)
    calibration = calibration_from(str(pico_text), text, kind="decoder", batch_size=8, **CALIBRATED)
    for batch in calibration.batches:
        states.append([])
        with torch.no_grad():
            model(batch.input_ids)
    whole = [torch.cat(parts) for parts in zip(*states, strict=True)]
    expected = [1 - float(torch.cosine_similarity(whole[n], whole[n + 2], -1).mean()) for n in (0, 1)]
    assert details(out)["scores"] == pytest.approx(expected, abs=1e-5)
    first = expected.index(min(expected))
    assert details(out)["removed"] == [first, first + 1]


@pytest.mark.parametrize("biased", [False, True])
def test_the_refit_is_numpys_least_squares(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, missing = torch.randn(200, 6, generator=generator) + 1, torch.randn(200, 3, generator=generator) + 1
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3) if biased else None
    error = ResidualError(Linear("d", "down", 3, 6, biased), torch.device("cpu"))
    for part in (slice(0, 90), slice(90, 200)):
        error.add(rows[part].unsqueeze(0), missing[part].unsqueeze(0), None)
    fitted = error.fit(weight, bias, torch.arange(6), 1e-9)
    design = np.concatenate([rows.numpy(), np.ones((200, int(biased)))], 1)
    expected, *_ = np.linalg.lstsq(design, missing.numpy(), rcond=None)
    assert np.allclose((fitted.fit.weight - weight).numpy(), expected[:6].T, atol=1e-3)
    left = np.square(missing.numpy() - design @ expected).sum() / np.square(missing.numpy()).sum()
    assert fitted.error == pytest.approx(left, rel=1e-2)


@pytest.mark.parametrize("criterion", ["influence", "contiguous", "greedy"])
def test_a_block_that_does_nothing_goes(
    criterion: str,
    make_decoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    model = make_decoder(tmp_path / "m", num_hidden_layers=4)
    tensors = load_file(model / "model.safetensors")
    for part in ("self_attn.o_proj", "mlp.down_proj"):
        tensors[f"model.layers.2.{part}.weight"].zero_()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    out = run(model, pico_text, tmp_path, {"pass": "layers", "keep": 0.75, "criterion": criterion})
    assert details(out)["removed"] == [2]
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert plain.config.num_hidden_layers == 3
    for found in (plain, load_model(out)):
        assert torch.allclose(outputs(found), outputs(load_model(model)), atol=1e-3)


def with_a_quiet_block(encoder: Path) -> Path:
    """The encoder, its second block adding little, so that this one goes and not the first, in front of which
    nothing can be refitted.
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(encoder / "model.safetensors")
    quiet = [name for name in tensors if ".layer.1." in name and "output.dense." in name]
    assert len(quiet) == 4
    for name in quiet:
        tensors[name] *= 0.3
    save_file(tensors, encoder / "model.safetensors", {"format": "pt"})
    return encoder


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_the_refit_brings_the_output_closer_and_the_result_exports(
    kind: str,
    pico_llama: Path,
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
    distance: Callable[[Path, Path, Path], float],
) -> None:
    decoder = kind == "decoder"
    path = pico_llama if decoder else with_a_quiet_block(make_encoder(tmp_path / "m", num_hidden_layers=3))
    found = {}
    for repair in ("none", "least_squares"):
        step = {"pass": "layers", "keep": 0.7, "repair": repair, "criterion": "contiguous"}
        out = run(path, pico_text, tmp_path, step, name=repair)
        found[repair] = distance(path, out, pico_text)
    assert details(out)["removed"][0] > 0
    assert found["least_squares"] < found["none"]
    export_bundle(out, output=tmp_path / "b")


@pytest.mark.parametrize("model_type", ["gemma2", "gpt2", "opt", "distilbert"])
def test_families(
    model_type: str,
    make_decoder: Callable[..., Path],
    make_encoder: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    run: Callable[..., Path],
) -> None:
    """Without a refit, what is left is the original with some of its modules taken out."""
    make = make_encoder if model_type == "distilbert" else make_decoder
    model = make(tmp_path / "m", model_type)
    out = run(model, pico_text, tmp_path, {"pass": "layers", "keep": 0.7, "repair": "none"})
    whole, anatomy = load_model(model), WeightSource.open(model).anatomy
    owner = whole.get_submodule(anatomy.blocks[0].stack)
    removed = details(out)["removed"]
    kept = [block for index, block in enumerate(owner) if index not in removed]  # type: ignore[arg-type, var-annotated]
    whole.set_submodule(anatomy.blocks[0].stack, torch.nn.ModuleList(kept))
    whole.config.num_hidden_layers = len(kept)
    if getattr(whole.config, "layer_types", None):
        whole.config.layer_types = [k for i, k in enumerate(whole.config.layer_types) if i not in removed]
    assert torch.allclose(outputs(load_model(out)), outputs(whole), atol=1e-5)
    planned = Layers(removed=tuple(removed), repair="none").anatomy_after(anatomy)
    assert planned.blocks == WeightSource.open(out).anatomy.blocks


def test_masks_and_codes_move_with_their_blocks(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path]
) -> None:
    passes = (
        {"pass": "magnitude", "sparsity": 0.5},
        {"pass": "layers", "keep": 0.7},
        {"pass": "rtn", "scheme": "W4A16-g32"},
    )
    source = WeightSource.open(run(pico_llama, pico_text, tmp_path, *passes))
    assert len(source.anatomy.blocks) == 2
    for linear in source.anatomy.linears():
        assert float((source.dense(linear.name) == 0).float().mean()) >= 0.49
    coded = {"pass": "rtn", "scheme": "W4A16-g32"}, {"pass": "layers", "keep": 0.7, "repair": "none"}
    source = WeightSource.open(run(pico_llama, pico_text, tmp_path, *coded, name="coded"))
    assert set(source.schemes) == {linear.name for linear in source.anatomy.linears()}
    with pytest.raises(RecipeError, match="quantized"):
        run(pico_llama, pico_text, tmp_path, coded[0], {"pass": "layers", "keep": 0.7}, name="refused")


def test_the_plan_counts_the_layers_that_go(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], recipe: Callable[..., str]
) -> None:
    passes = {"pass": "layers", "keep": 0.5}, {"pass": "rtn", "scheme": "W4A16-g32"}
    planned = recipe(tmp_path, *passes)
    plan = plan_model(str(pico_llama), recipe=planned, calibration=str(pico_text), **CALIBRATED)
    assert (plan.steps[0].layers, plan.steps[1].layers) == (21, 7)
    written = (run(pico_llama, pico_text, tmp_path, *passes) / "model.safetensors").stat().st_size
    assert plan.result_bytes == pytest.approx(written, rel=0.1)
    with pytest.raises(RecipeError, match="leave none"):
        plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "layers", "keep": 0.1}))


def test_blocks_that_are_named_go(
    pico_llama: Path, pico_text: Path, tmp_path: Path, run: Callable[..., Path], recipe: Callable[..., str]
) -> None:
    behind = {"pass": "rtn", "scheme": "W4A16-g32", "targets": ["model.layers.1.*"]}
    out = run(pico_llama, pico_text, tmp_path, {"pass": "layers", "removed": [1]}, behind)
    assert details(out)["removed"] == [1] and read_json(out / "config.json")["num_hidden_layers"] == 2
    source = WeightSource.open(out)
    assert {name.split(".")[2] for name in source.schemes} == {"1"}  # by the numbers that blocks have then
    planned = Layers(removed=(1,)).anatomy_after(WeightSource.open(pico_llama).anatomy)
    assert planned.blocks == source.anatomy.blocks
    for removed, said in (([1, 1], "named before"), ([3], "not there"), ([0, 1, 2], "every block")):
        with pytest.raises(RecipeError, match=said):
            plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "layers", "removed": removed}))
    for step in ({}, {"keep": 0.5, "removed": [1]}):
        with pytest.raises(RecipeError, match="and not both"):
            plan_model(str(pico_llama), recipe=recipe(tmp_path, {"pass": "layers", **step}))
