"""AWQ: its search against a loop on the inputs themselves, and whole sweeps with and without quantization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.block import Block
from edgepress.compress.factor_search import candidates, search
from edgepress.compress.grid import quantize
from edgepress.compress.passes.awq import Awq
from edgepress.compress.scheme import Scheme
from edgepress.compress.torch_model import load_model
from edgepress.compress.weights import WeightSource
from edgepress.storage import read_json
from torch import Tensor

LayerBlock = Callable[[Tensor, Tensor], tuple[Block, Any]]

SCHEMES = ["W4A16-g16", "W3A16_ASYM-g32", "W2A16-g16"]
CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}


def outliers(seed: int) -> tuple[Tensor, Tensor]:
    """A weight ``[24, 64]`` and inputs ``[256, 64]``, some channels of which are ten times larger."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.where(torch.rand(64, generator=generator) < 0.1, 10.0, 1.0)
    return torch.randn(24, 64, generator=generator), torch.randn(256, 64, generator=generator) * size


def damage(inputs: Tensor, change: Tensor) -> Tensor:
    return (inputs @ change.T).square().sum(1).mean()


@pytest.mark.parametrize("name", SCHEMES)
def test_the_search_finds_what_a_loop_over_the_inputs_finds(name: str) -> None:
    weight, inputs = outliers(0)
    scheme, power = Scheme.parse(name), inputs.square().mean(0)
    best, plain = None, 0.0
    for label, factors in candidates(power.sqrt(), weight.square().mean(0).sqrt()):
        tensor = quantize(weight * factors, scheme, "mse", power / factors.square())
        outputs = (inputs / factors) @ tensor.dequantize().T
        loss = float((outputs - inputs @ weight.T).square().sum(1).mean())
        if best is None:
            plain = loss
        best = (loss, label) if best is None or loss < best[0] else best
    assert best is not None
    magnitudes = weight.square().mean(0).sqrt()
    gram = inputs.T @ inputs / len(inputs)
    found = search(
        weight,
        power.sqrt(),
        magnitudes,
        lambda f: f,
        lambda c: ((c @ gram) * c).sum(),
        power,
        scheme,
    )
    assert found.label == best[1]
    assert found.share == pytest.approx(best[0] / plain, rel=1e-3)
    assert found.share < 0.9 or scheme.bits == 2


def test_inputs_alike_need_no_factors() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.ones(8, 32) * torch.randn(8, 1, generator=generator)
    ones = torch.ones(32)
    found = search(
        weight,
        ones,
        weight.square().mean(0).sqrt(),
        lambda f: f,
        partial(damage, torch.eye(32)),
        ones,
        Scheme.parse("W4A16-g16"),
    )
    assert found.share == 1 and torch.equal(found.factors, torch.ones(32))


def recipe(path: Path, *passes: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump({"name": path.stem, "passes": list(passes)}))
    return str(path)


def distance(one: Path, other: Path) -> float:
    ids = torch.arange(5, 69).view(2, 32)
    with torch.no_grad():
        return float((load_model(one)(ids)[0] - load_model(other)(ids)[0]).square().mean())


def test_folding_alone_keeps_the_function(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    only = recipe(tmp_path / "r.yaml", {"pass": "awq", "scheme": "W4A16-g32", "quantize": False})
    out = compress_model(
        str(pico_llama), recipe=only, output=tmp_path / "o", calibration=str(pico_text), **CALIBRATED
    )
    assert distance(pico_llama, out) < 1e-8
    assert not WeightSource.open(out).schemes
    layers = read_json(out / "edgepress.json")["layers"]
    assert len(layers) == 21 and any("leaves" in layer["detail"] for layer in layers)


def test_then_gptq(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    both = recipe(
        tmp_path / "r.yaml",
        {"pass": "awq", "scheme": "W4A16-g32", "quantize": False},
        {"pass": "gptq", "scheme": "W4A16-g32"},
    )
    out = compress_model(
        str(pico_llama), recipe=both, output=tmp_path / "o", calibration=str(pico_text), **CALIBRATED
    )
    assert len(WeightSource.open(out).schemes) == 21
    assert {layer["step"] for layer in read_json(out / "edgepress.json")["layers"]} == {"gptq"}


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox", "opt"])
def test_beats_rounding_where_channels_differ(
    model_type: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    """Outlier channels are made by unequal norms: the kind of model that the method is for."""
    from safetensors.torch import load_file, save_file

    model = make_decoder(tmp_path / "model", model_type)
    tensors = load_file(model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor *= torch.where(torch.rand(len(tensor), generator=generator) < 0.05, 16.0, 1.0)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    results = {}
    for name in ("rtn", "awq"):
        path = recipe(tmp_path / f"{name}.yaml", {"pass": name, "scheme": "W4A16-g32"})
        results[name] = compress_model(
            str(model), recipe=path, output=tmp_path / name, calibration=str(pico_text), **CALIBRATED
        )
    ratio = distance(model, results["awq"]) / distance(model, results["rtn"])
    print("RATIO", model_type, ratio)
    assert ratio < 0.9


def test_encoders_scale_what_can_be_scaled_and_say_what_cannot(
    pico_bert: Path, pico_text: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path / "r.yaml", {"pass": "awq", "scheme": "W4A16-g32"})
    out = compress_model(
        str(pico_bert), recipe=path, output=tmp_path / "o", calibration=str(pico_text), **CALIBRATED
    )
    for layer in read_json(out / "edgepress.json")["layers"]:
        scaled = layer["name"].endswith("attention.output.dense")
        assert layer["detail"].startswith("not scaled") != scaled


@pytest.mark.parametrize("option", [True, False])
def test_useless_statistics_scale_nothing(option: bool, layer_block: LayerBlock) -> None:
    weight, inputs = outliers(0)
    gram = inputs.T @ inputs / len(inputs)
    for broken in (gram * torch.nan, torch.zeros_like(gram)):
        block, linear = layer_block(weight, broken)
        Awq(scheme="W4A16-g16", targets=("down",), quantize=option).apply(block)
        block.check("awq")
        (status,) = block.statuses
        assert status.detail
        if option:
            assert status.degraded == bool(broken.isnan().any())
            expected = quantize(weight, Scheme.parse("W4A16-g16"))
            assert torch.equal(block.quantized[linear.name].codes, expected.codes)
        else:
            assert torch.equal(block.weight(linear), weight)


def test_masks_hold(layer_block: LayerBlock) -> None:
    weight, inputs = outliers(1)
    gram = inputs.T @ inputs / len(inputs)
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) > 0.5
    for name in SCHEMES:
        block, linear = layer_block(weight * mask, gram)
        block.masks[linear.name] = mask
        Awq(scheme=name, targets=("down",)).apply(block)
        block.check("awq")
