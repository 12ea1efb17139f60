"""Words of a trellis from recipe to bundle: what GPTQ finds is stored and computed, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.benchmarks.lab.same_bytes.pico_families import GPTJ
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.gptq import Gptq
from edgepress.compress.pipeline.block import Block, output_error
from edgepress.errors import CheckpointError, EdgepressError, InputError, RecipeError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from edgepress.runtime.kernels.library import library
from safetensors.torch import load_file, save_file

pytestmark = [
    pytest.mark.chain,
    pytest.mark.usefixtures("tokenizers_made_here"),
    pytest.mark.skipif(library() is None, reason="the operators were not built"),
]

NAME = "model.layers.0.self_attn.q_proj"


def compressed(model: Path, folder: Path, *passes: dict[str, Any]) -> None:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": list(passes)}))
    compress_model(str(model), recipe=str(recipe), output=folder / "o")


@pytest.mark.parametrize("name", ["T2A16", "T3A16", "T4A16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_beats_rounding_on_its_own_objective(
    name: str, seed: int, layer_block: Callable[..., tuple[Block, Any]]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(512, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    weight, gram = torch.randn(24, 64, generator=generator), inputs.T @ inputs / 512
    block, linear = layer_block(weight.clone(), gram)
    Gptq(scheme=name, targets=("down",)).apply(block)

    def error(tensor: QTensor) -> float:
        return output_error(tensor.dequantize() - weight, weight, gram)

    found = error(block.quantized[linear.name])
    assert found < 0.9 * error(quantize(weight, Scheme.parse(name)))
    assert block.statuses[0].error == pytest.approx(found, rel=1e-3)


def test_a_layer_that_reads_nothing_is_rounded(layer_block: Callable[..., tuple[Block, Any]]) -> None:
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    block, linear = layer_block(weight, torch.full((32, 32), torch.inf))
    Gptq(scheme="T3A16", targets=("down",)).apply(block)
    expected = quantize(weight, Scheme.parse("T3A16"))
    assert torch.equal(block.quantized[linear.name].codes, expected.codes)
    assert block.statuses[0].status != "ok"


def test_from_recipe_to_bundle(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    asked: dict[str, Any] = {"scheme": "T3A16", "calibration": str(pico_text), "samples": 8, "length": 32}
    path = compress_model(str(pico_llama), output=tmp_path / "o", **asked)
    layers = read_json(path / "edgepress.json")["layers"]
    assert {(layer["scheme"], layer["status"]) for layer in layers} == {("T3A16", "ok")}
    source = WeightSource.open(path)
    tensor, stored = source.linear(NAME), load_file(path / "model.safetensors")
    assert isinstance(tensor, QTensor) and tensor.scheme == Scheme.parse("T3A16")
    assert stored[f"{NAME}.weight_words"].numel() * 8 == 3 * tensor.codes.numel()
    ids = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        near = load_model(pico_llama)(ids).logits
        found = load_model(path)(ids).logits
    assert 0 < float((found - near).square().mean() / near.square().mean()) < 0.5
    with pytest.raises(ValueError, match="format"):
        AutoModelForCausalLM.from_pretrained(path)
    bundle = export_bundle(path, output=tmp_path / "b")
    assert read_json(bundle / "manifest.json")["parity"]["status"] == "passed"
    refused: list[tuple[dict[str, Any], type[EdgepressError], str]] = [
        ({"operators": "standard"}, InputError, "own operators alone"),
        ({"format": "gguf"}, ShapeError, "GGUF has no type"),
        ({"format": "gptq"}, InputError, "T3A16"),
    ]
    for asked, kind, said in refused:
        with pytest.raises(kind, match=said):
            export_bundle(path, output=tmp_path / "x", **asked)
    assert not (tmp_path / "x").exists()


def test_words_that_are_none_are_refused(pico_llama: Path, tmp_path: Path) -> None:
    path = compress_model(str(pico_llama), scheme="T3A16", output=tmp_path / "o")
    whole = load_file(path / "model.safetensors")
    words, scale = f"{NAME}.weight_words", f"{NAME}.weight_scale"
    broken: list[tuple[dict[str, Any], str]] = [
        ({words: whole[words][:, :-1].contiguous()}, "no whole words"),
        ({words: whole[words].flatten()}, "not one for each row"),
        ({words: whole[words].to(torch.int16)}, "not words of"),
        ({words: whole[words][:-1].contiguous()}, "not words of"),
        ({scale: whole[scale].flatten()}, "not one for each row"),
        ({scale: whole[scale][:8].contiguous()}, "shape|rows"),
        ({scale: whole[scale] * torch.inf}, "scale"),
        ({scale: None}, "not a part"),
        ({words: None}, "another form"),
    ]
    for changes, said in broken:
        tensors = {name: one for name, one in (whole | changes).items() if one is not None}
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=said):
            WeightSource.open(path).linear(NAME)


def test_what_words_cannot_be_is_refused(
    pico_llama: Path, make_decoder: Callable[..., Path], tmp_path: Path
) -> None:
    rtn = {"pass": "rtn", "scheme": "T3A16"}
    narrow = make_decoder(tmp_path / "narrow", intermediate_size=100)
    mixture = make_decoder(tmp_path / "mixture", "qwen3_moe")
    interleaved = make_decoder(tmp_path / "apart", "gptj", **GPTJ)
    refused: list[tuple[Path, list[dict[str, Any]], type[InputError], str]] = [
        (narrow, [rtn], ShapeError, "words of 8 columns do not divide"),
        (mixture, [rtn], RecipeError, "T3A16 is not for a qwen3_moe"),
        (interleaved, [rtn], RecipeError, "takes words of 8 apart"),
        (pico_llama, [{"pass": "magnitude", "sparsity": 0.5}, rtn], RecipeError, "has no zero"),
        (pico_llama, [{**rtn, "pass": "hqq"}], RecipeError, "rounded by the passes rtn and gptq"),
        (pico_llama, [{**rtn, "pass": "gptq", "refinements": 1}], RecipeError, "refinements do not know"),
    ]
    for model, passes, kind, said in refused:
        with pytest.raises(kind, match=said):
            compressed(model, tmp_path, *passes)
