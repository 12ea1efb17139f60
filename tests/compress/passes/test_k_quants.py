"""K-quants from recipe to file: what the pass found is what the GGUF file holds, and nobody else opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.gguf_source import materialise
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.errors import CheckpointError, InputError, RecipeError, ShapeError
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

pytestmark = [pytest.mark.chain, pytest.mark.usefixtures("tokenizers_made_here")]

IDS = torch.arange(3, 43).view(2, 20)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, make_decoder: Callable[..., Path]) -> Path:
    """A pico Llama with rows of whole super-blocks, but for what `o` reads."""
    folder = tmp_path_factory.mktemp("wide") / "m"
    return make_decoder(folder, hidden_size=256, intermediate_size=512, num_hidden_layers=2, head_dim=32)


def compressed(model: Path, folder: Path, text: Path | None, *passes: dict[str, Any]) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": list(passes)}))
    asked: dict[str, Any] = {} if text is None else {"calibration": str(text), "samples": 8, "length": 32}
    return compress_model(str(model), recipe=str(recipe), output=folder / "o", overwrite=True, **asked)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [pytest.param("Q4_K", marks=pytest.mark.slow), "Q2_K"])
def test_the_file_is_the_checkpoint(wide: Path, pico_text: Path, tmp_path: Path, name: str) -> None:
    asked: dict[str, Any] = {"scheme": name, "calibration": str(pico_text), "samples": 8, "length": 32}
    (note,) = plan_model(str(wide), **asked).notes[:1]
    assert note == "IQ4_NL for 2 layers whose inputs are no blocks of 256"
    path = compress_model(str(wide), output=tmp_path / "o", **asked)
    layers = {layer["name"]: layer for layer in read_json(path / "edgepress.json")["layers"]}
    assert {layer["status"] for layer in layers.values()} == {"ok"}
    assert layers["model.layers.0.self_attn.o_proj"]["scheme"] == "IQ4_NL"
    assert layers["model.layers.0.mlp.down_proj"]["scheme"] == name
    (file,) = export_bundle(path, format="gguf", output=tmp_path / "g").glob("*.gguf")
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    assert (types["blk.1.attn_q.weight"], types["blk.1.attn_output.weight"]) == (name, "IQ4_NL")
    with torch.no_grad():
        expected = load_model(path, embedding=True)(IDS, use_cache=False).logits
        found = load_model(materialise(file, tmp_path / "read"))(IDS, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_only_gguf_takes_it(wide: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = compress_model(str(wide), scheme="Q3_K", output=tmp_path / "o")
    assert read_json(path / "edgepress.json")["opens_in"]["transformers"]["answer"] == "no"
    with pytest.raises(ValueError, match="format"):
        AutoModelForCausalLM.from_pretrained(path)
    for form, said in (("onnx", "ONNX Runtime does not know"), ("gptq", "several schemes")):
        with pytest.raises(InputError, match=said):
            export_bundle(path, format=form, output=tmp_path / "x")


def test_recipes_that_cannot_be_are_refused(
    wide: Path, pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    plain = {"pass": "k_quants", "importance": False}
    refused: list[tuple[Path, list[dict[str, Any]], type[InputError], str]] = [
        (pico_llama, [{**plain, "scheme": "Q4_K"}], ShapeError, "blocks of 256 do not divide"),
        (wide, [{**plain, "scheme": "W4A16-g32"}], RecipeError, "this pass is for Q2_K"),
        (wide, [{"pass": "rtn", "scheme": "Q4_K"}], RecipeError, "rounded by the passes k_quants and gptq"),
        (wide, [{"pass": "gptq", "scheme": "Q4_K", "refinements": 1}], RecipeError, "refinements do not"),
        (
            wide,
            [{"pass": "magnitude", "sparsity": 0.5}, {**plain, "scheme": "Q4_K", "targets": ["q"]}],
            RecipeError,
            "has no zero",
        ),
    ]
    for model, passes, kind, said in refused:
        with pytest.raises(kind, match=said):
            compressed(model, tmp_path, None, *passes)
    kept = [{"pass": "magnitude", "sparsity": 0.5}, {**plain, "scheme": "Q3_K", "targets": ["q", "down"]}]
    source = WeightSource.open(compressed(wide, tmp_path, None, *kept))
    weight = source.dense("model.layers.0.mlp.down_proj")
    assert float((weight == 0).float().mean()) >= 0.5


def test_blocks_that_hold_no_numbers_are_refused(wide: Path, tmp_path: Path) -> None:
    path = compress_model(str(wide), scheme="Q6_K", output=tmp_path / "o")
    tensors, name = load_file(path / "model.safetensors"), "model.layers.0.self_attn.q_proj"
    assert isinstance(WeightSource.open(path).linear(name), QTensor)
    tensors[f"{name}.weight_blocks"][0, -2:] = 255  # the unit
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no numbers"):
        WeightSource.open(path).linear(name)
    tensors[f"{name}.weight_blocks"] = tensors[f"{name}.weight_blocks"][:, :-1].contiguous()
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="no whole blocks"):
        WeightSource.open(path)
