"""FP8, MXFP4 and NVFP4 through the chain: who may make them, who runs them, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.cli.verbs.inspect import inspect_checkpoint
from edgepress.compress.api import compress_model
from edgepress.compress.model.checkpoint.stored_tensors import restored, stored
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.gptq import Gptq
from edgepress.compress.passes.rtn import Rtn
from edgepress.compress.recipe import load_recipe
from edgepress.errors import CheckpointError, InputError, RecipeError, ShapeError, TrainingError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from safetensors.torch import load_file

CALIBRATED: dict[str, Any] = {"samples": 8, "length": 32}


def recipe(folder: Path, text: str) -> str:
    (folder / "r.yaml").write_text(f"passes: [{text}]")
    return str(folder / "r.yaml")


@pytest.mark.parametrize("name", ["FP8_DYNAMIC", "NVFP4A16", "MXFP4A16"])
@pytest.mark.parametrize("refinements", [0, 2])
def test_gptq_works_on_float_grids_and_keeps_pruned_weights(
    name: str, refinements: int, layer_block: Callable[..., Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 96, generator=generator) @ torch.randn(96, 96, generator=generator)
    gram, weight = inputs.T @ inputs / 400, torch.randn(32, 96, generator=generator)
    mask = torch.rand(weight.shape, generator=generator) > 0.3
    errors = []
    own: dict[str, Any] = {"scheme": name, "targets": ("down",)}
    for step in (Rtn(**own), Gptq(**own, refinements=refinements)):
        block, linear = layer_block(weight * mask, gram)
        block.masks[linear.name] = mask
        step.apply(block)
        block.check("test")
        change = block.quantized[linear.name].dequantize() - weight * mask
        errors.append(float(((change @ gram) * change).sum()))
    assert errors[1] < errors[0]


def test_recipes_of_the_package() -> None:
    assert not load_recipe("fp8-dynamic").calibrated and load_recipe("nvfp4a16").calibrated
    assert load_recipe("mxfp4a16").summary == "MXFP4A16 gptq"


@pytest.mark.chain
def test_matrices_that_runtimes_join_share_a_global_scale(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    for step in ("rtn", "gptq"):
        text = f"{{pass: {step}, scheme: NVFP4}}"
        out = compress_model(
            str(pico_llama),
            output=tmp_path / step,
            recipe=recipe(tmp_path, text),
            calibration=str(pico_text),
            **CALIBRATED,
        )
        tensors = load_file(out / "model.safetensors")
        for group in (("self_attn.q", "self_attn.k", "self_attn.v"), ("mlp.gate", "mlp.up")):
            for part in ("weight_global_scale", "input_global_scale"):
                names = [f"model.layers.0.{name}_proj.{part}" for name in group]
                assert len({float(tensors[name]) for name in names}) == 1


@pytest.mark.chain
def test_who_runs_it_is_said_and_an_export_is_refused(pico_llama: Path, tmp_path: Path) -> None:
    out = compress_model(str(pico_llama), output=tmp_path / "o", scheme="FP8_DYNAMIC")
    (line,) = read_json(out / "edgepress.json")["runs_on"]
    assert "vLLM" in line and "8.9" in line and "emulated" in line
    assert inspect_checkpoint(out)["runs_on"] == [line]
    with pytest.raises(InputError, match="FP8_DYNAMIC") as caught:
        export_bundle(out, output=tmp_path / "bundle")
    assert "vllm serve" in str(caught.value.fix) and not (tmp_path / "bundle").exists()
    plain = compress_model(str(pico_llama), output=tmp_path / "p", scheme="W4A16-g32")
    assert "ONNX Runtime" in read_json(plain / "edgepress.json")["runs_on"][0]


@pytest.mark.chain
def test_floats_pass_through_later_passes_untouched(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    text = "{pass: rtn, scheme: NVFP4A16, targets: [gate, up]}, {pass: rtn, scheme: W4A16-g32, targets: [q]}"
    out = compress_model(str(pico_llama), output=tmp_path / "o", recipe=recipe(tmp_path, text))
    again = compress_model(
        str(out),
        output=tmp_path / "again",
        recipe=recipe(tmp_path, "{pass: rtn, scheme: W8A16-g32, targets: [k]}"),
    )
    before, after = WeightSource.open(out), WeightSource.open(again)
    for name, scheme in before.schemes.items():
        assert after.schemes[name] == scheme
        assert torch.equal(before.dense(name), after.dense(name))
    assert Scheme.parse("NVFP4A16") in after.schemes.values()


def test_scales_that_cannot_be_kept_exactly_are_refused() -> None:
    tensor = quantize(
        torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), Scheme.parse("NVFP4A16")
    )
    kept = stored("layer", tensor, "")
    again = restored("layer", tensor.scheme, kept.__getitem__, "")
    assert torch.equal(again.dequantize(), tensor.dequantize())
    with pytest.raises(CheckpointError, match="power of two"):
        stored("layer", replace(tensor, scale=tensor.scale * 1.3), "")


@pytest.mark.parametrize("step", ["awq", "hqq", "allocate, bits: 5, schemes: [MXFP4A16]"])
def test_passes_for_integers_say_so(step: str, pico_llama: Path, tmp_path: Path) -> None:
    text = f"{{pass: {step}}}" if "allocate" in step else f"{{pass: {step}, scheme: NVFP4A16}}"
    with pytest.raises(RecipeError, match="integer codes"):
        compress_model(str(pico_llama), output=tmp_path / "o", recipe=recipe(tmp_path, text))


@pytest.mark.chain
def test_what_learns_refuses_float_codes(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    text = "{pass: rtn, scheme: MXFP4A16}, {pass: tune}"
    with pytest.raises(TrainingError, match="MXFP4A16"):
        compress_model(
            str(pico_llama),
            output=tmp_path / "o",
            recipe=recipe(tmp_path, text),
            calibration=str(pico_text),
            **CALIBRATED,
        )


@pytest.mark.chain
def test_blocks_that_do_not_divide_are_refused(make_decoder: Callable[..., Path], tmp_path: Path) -> None:
    model = make_decoder(tmp_path / "m", intermediate_size=112)
    with pytest.raises(ShapeError, match="down_proj") as caught:
        compress_model(str(model), output=tmp_path / "o", scheme="MXFP4A16")
    assert "FP8_DYNAMIC" in str(caught.value.fix)
    assert compress_model(str(model), output=tmp_path / "o", scheme="NVFP4A16").is_dir()
