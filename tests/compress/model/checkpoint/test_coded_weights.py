"""Forms of other tools: which are known, what has none, and merging an adapter into floats that codes stand
for.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.cli.verbs.inspect import inspect_checkpoint
from edgepress.compress.api import compress_model, plan_model
from edgepress.compress.model.checkpoint.quantization_config import forms, quantization_config
from edgepress.compress.model.checkpoint.stored_tensors import stored
from edgepress.compress.model.models import resolve
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.errors import CheckpointError, RecipeError, UnknownName
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, write_json
from safetensors.torch import load_file, save_file

from .stored_forms.rewriting import BLOCK, Packer, Part, rewritten
from .stored_forms.test_fp8 import packer as fp8
from .stored_forms.test_gptq import packer as gptq
from .stored_forms.test_gptq import settings

Q = f"{BLOCK}self_attn.q_proj"
FP8: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [16, 32]}
OF_BLOCKS: Packer = fp8((16, 32), "weight_scale_inv", torch.float32, ())


def plain(module: str, weight: Part) -> tuple[dict[str, Part], Part]:
    return {"weight": weight.astype(np.float32)}, weight


def test_a_form_that_nobody_knows_is_refused_by_name(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", OF_BLOCKS, {**FP8, "quant_method": "quark"})
    with pytest.raises(UnknownName, match="unknown form of quantized weights 'quark'") as refused:
        WeightSource.open(tmp_path / "m")
    assert "gptq" in refused.value.fix and "compressed-tensors" in refused.value.fix


def test_floats_need_no_form(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", plain, {"quant_method": "bitnet", "quantization_mode": "online"})
    assert not WeightSource.open(tmp_path / "m").reader.coded.by_module
    write_json(
        tmp_path / "m" / "config.json", read_json(tmp_path / "m" / "config.json") | {"quantization_config": 4}
    )
    with pytest.raises(CheckpointError, match="no JSON object"):
        WeightSource.open(tmp_path / "m")


def test_inspect_says_what_a_model_comes_from(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", gptq(4, 32, ordered=True), settings(4, 32))
    found = inspect_checkpoint(tmp_path / "m")
    assert found["from"] == "4 bits (GPTQ, groups of 32)"
    assert found["layers"][0]["scheme"] == "4 bits" and found["layers"][-1]["scheme"] == "F32"
    assert "packages of its own form" in found["opens_in"]["transformers"]["why"]
    whole = sum(path.stat().st_size for path in (tmp_path / "m").glob("*.safetensors"))
    assert 0.8 * whole < found["bytes"] <= whole


@pytest.mark.chain
def test_codes_go_into_a_bundle_as_they_are(pico_llama: Path, tmp_path: Path) -> None:
    rewritten(pico_llama, tmp_path / "m", gptq(4, 32, symmetric=False), settings(4, 32))
    manifest = read_json(export_bundle(tmp_path / "m", output=tmp_path / "b") / "manifest.json")
    assert manifest["parity"]["status"] == "passed" and "W4A16_ASYM-g32" in str(manifest["scheme"])


@pytest.mark.chain
def test_what_no_pass_touches_is_written_in_float(pico_llama: Path, tmp_path: Path) -> None:
    weights = rewritten(pico_llama, tmp_path / "m", OF_BLOCKS, FP8)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: rtn, scheme: W8A16-g32, targets: [down], requantize: true}]")
    path = compress_model(str(tmp_path / "m"), recipe=str(recipe), output=tmp_path / "o")
    out = WeightSource.open(path)
    assert np.array_equal(out.dense(Q).numpy(), weights[Q]) and Q not in out.schemes
    assert read_json(path / "config.json")["quantization_config"]["quant_method"] == "compressed-tensors"


def test_an_adapter_is_merged_into_the_floats(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    weights = rewritten(pico_llama, tmp_path / "m", gptq(4, 32), settings(4, 32))
    adapter = tmp_path / "a"
    adapter.mkdir()
    given = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "m"), "lora_alpha": 8, "r": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(given))
    down, up = torch.ones(4, 64), torch.ones(64, 4) / 64
    save_file(
        {f"base_model.model.{Q}.lora_A.weight": down, f"base_model.model.{Q}.lora_B.weight": up},
        adapter / "adapter_model.safetensors",
    )
    merged = WeightSource.open(resolve(str(adapter)).path)
    assert not merged.schemes
    expected = torch.from_numpy(weights[Q]) + 2 * up @ down
    assert torch.allclose(merged.dense(Q), expected, atol=1e-6)
    # What the adapter does not touch lies on the base's grid as before.
    with pytest.raises(RecipeError, match="already have codes from the model as it came"):
        plan_model(str(adapter), scheme="W4A16-g32")
    plan = plan_model(str(adapter), scheme="W4A16-g32", requantize=True)
    assert "from 4 bits (GPTQ, groups of 32)" in plan.notes


@pytest.mark.parametrize("kind", ["gptq", "compressed-tensors"])
def test_one_of_two_encoders_comes_from_the_bits_of_both(
    kind: str, make_pair: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    model, module = make_pair(tmp_path / "m"), "text_model.encoder.layers.0.self_attn.q_proj"
    tensors, config = load_file(model / "model.safetensors"), read_json(model / "config.json")
    value = tensors.pop(f"{module}.weight")
    if kind == "gptq":
        parts, weight = gptq(4, 32)(module, value.numpy())
        tensors |= {f"{module}.{part}": torch.from_numpy(value.copy()) for part, value in parts.items()}
        said = "from 4 bits (GPTQ, groups of 32)"
        config["quantization_config"] = settings(4, 32)
    else:
        scheme = Scheme.parse("W4A16-g32")
        codes, form = quantize(value, scheme), forms([scheme])
        tensors |= stored(module, codes, form[scheme])
        config["quantization_config"] = quantization_config({module: scheme}, form, [])
        weight, said = codes.dequantize().numpy(), "from 4 bits (W4A16-g32): 1 layers"
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    write_json(model / "config.json", config)
    source = WeightSource.open(resolve(f"{model}:text").path)
    assert np.array_equal(source.dense(module).numpy(), weight)
    with pytest.raises(RecipeError, match="already have codes from the model as it came"):
        plan_model(f"{model}:text", scheme="W4A16-g32")
    assert said in plan_model(f"{model}:text", scheme="W4A16-g32", requantize=True).notes


@pytest.mark.parametrize("ordered", [False, True])
def test_linears_of_gpt2_are_read_as_the_form_has_them(
    make_decoder: Callable[..., Path], tmp_path: Path, ordered: bool
) -> None:
    model, module = make_decoder(tmp_path / "m", "gpt2"), "transformer.h.0.attn.c_attn"
    tensors = load_file(model / "model.safetensors")
    parts, weight = gptq(4, 32, ordered=ordered)(module, tensors.pop(f"{module}.weight").T.numpy())
    tensors |= {f"{module}.{part}": torch.from_numpy(value.copy()) for part, value in parts.items()}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "quantization_config": settings(4, 32)})
    source = WeightSource.open(model)
    assert (module in source.schemes) is not ordered
    assert np.array_equal(source.dense(module).numpy(), weight)
    assert source.shapes[f"{module}.weight"] == weight.shape
