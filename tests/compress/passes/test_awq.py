"""AWQ: its search against a loop on the inputs themselves, and whole sweeps with and without quantization."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.awq import Awq
from edgepress.compress.pipeline.block import Block
from edgepress.compress.solve.folding import powers, search
from edgepress.compress.solve.links import Link
from edgepress.files.storage import read_json
from torch import Tensor

pytestmark = pytest.mark.chain


LayerBlock = Callable[[Tensor, Tensor], tuple[Block, Any]]

SCHEMES = ["W4A16-g16", "W3A16_ASYM-g32", "W2A16-g16"]
CALIBRATED: dict[str, Any] = {"samples": 12, "length": 32}


def outliers(seed: int) -> tuple[Tensor, Tensor]:
    """A weight ``[24, 64]`` and inputs ``[256, 64]``, some channels of which are ten times larger."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.where(torch.rand(64, generator=generator) < 0.1, 10.0, 1.0)
    return torch.randn(24, 64, generator=generator), torch.randn(256, 64, generator=generator) * size


@pytest.mark.parametrize("name", SCHEMES)
def test_the_factors_are_those_that_a_loop_over_the_inputs_finds(name: str, layer_block: LayerBlock) -> None:
    """The link of the block's down is from up, whose channels it reads as they are."""
    weight, inputs = outliers(0)
    scheme, power = Scheme.parse(name), inputs.square().mean(0)
    best, plain = None, 0.0
    for label, factors in powers(power.sqrt(), weight.square().mean(0).sqrt()):
        tensor = quantize(weight * factors, scheme, "mse", power / factors.square())
        outputs = (inputs / factors) @ tensor.dequantize().T
        loss = float((outputs - inputs @ weight.T).square().sum(1).mean())
        if best is None:
            plain = loss
        best = (loss, label) if best is None or loss < best[0] else best
    assert best is not None
    block, linear = layer_block(weight, inputs.T @ inputs / len(inputs))
    found = Awq(scheme=name).factors(block, Link(linear, (linear,)), [linear])
    assert found is not None
    assert found.label == best[1]
    assert found.ratio == pytest.approx(best[0] / plain, rel=1e-3)
    assert found.ratio < 0.9 or scheme.bits == 2


def test_the_search_keeps_the_first_of_equals() -> None:
    tried = [("one", torch.ones(3)), ("two", 2 * torch.ones(3)), ("three", 3 * torch.ones(3))]
    assert search(tried, lambda _: 1.0).label == "one"
    found = search(tried, lambda factors: abs(float(factors[0]) - 2.2))
    assert found.label == "two" and found.ratio == pytest.approx(0.2 / 1.2)
    assert search(tried, lambda _: 0.0).ratio == 1


def test_powers_are_positive_and_finite_for_dead_channels_too() -> None:
    for magnitudes in (torch.zeros(8), torch.tensor([0.0, 1e-30, 1e30])):
        for _, factors in powers(magnitudes, magnitudes.flip(0)):
            assert bool(((factors > 0) & torch.isfinite(factors)).all())


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
