"""SmoothQuant: the rule against a loop, and whole sweeps on models with outlier channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.fake_quant import TokenQuantLinear, quantize_tokens
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.smoothquant import Smoothquant
from edgepress.compress.pipeline.block import Block
from edgepress.compress.pipeline.statistics import STATISTICS
from edgepress.compress.solve.folding import migrations
from edgepress.compress.solve.links import Link
from edgepress.errors import RecipeError
from edgepress.files.storage import read_json
from torch import Tensor

pytestmark = pytest.mark.chain


LayerBlock = Callable[[Tensor, Tensor], tuple[Block, Any]]
W8A8 = Scheme.parse("W8A8")


def outliers(seed: int) -> tuple[Tensor, Tensor]:
    """A weight ``[24, 64]`` and inputs ``[512, 64]``, some channels of which are far larger."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.where(torch.rand(64, generator=generator) < 0.1, 50.0, 1.0)
    return torch.randn(24, 64, generator=generator), torch.randn(512, 64, generator=generator) * size


def product_error(weight: Tensor, inputs: Tensor, factors: Tensor) -> float:
    """Of the product with both sides in 8 bits."""
    rounded = quantize(weight * factors, W8A8).dequantize()
    return float((quantize_tokens(inputs / factors) @ rounded.T - inputs @ weight.T).square().sum())


def block_of(layer_block: LayerBlock, weight: Tensor, inputs: Tensor) -> tuple[Block, Any]:
    block, linear = layer_block(weight, torch.eye(64))
    block.statistics = {linear.name: {"absmax": inputs.abs().amax(0), "sample": inputs}}
    return block, linear


def test_a_given_alpha_is_the_papers_rule(layer_block: LayerBlock) -> None:
    weight, inputs = outliers(0)
    block, linear = block_of(layer_block, weight, inputs)
    found = Smoothquant(alpha=0.75).factors(block, Link(linear, (linear,)), [linear])
    assert found is not None
    expected = torch.tensor(
        [float(inputs[:, j].abs().max() ** 0.75 / weight[:, j].abs().max() ** 0.25) for j in range(64)]
    )
    ratio = found.factors / expected
    assert torch.allclose(ratio, ratio[0].expand(64), rtol=1e-4)


def test_the_search_takes_the_least_error_of_the_product(layer_block: LayerBlock) -> None:
    weight, inputs = outliers(1)
    block, linear = block_of(layer_block, weight, inputs)
    found = Smoothquant().factors(block, Link(linear, (linear,)), [linear])
    assert found is not None
    peaks, largest = inputs.abs().amax(0), weight.abs().amax(0)
    tried = migrations(peaks, largest, [n / 10 for n in range(2, 9)])
    errors = {label: product_error(weight, inputs, factors) for label, factors in tried}
    assert found.label == min(errors, key=lambda label: errors[label])
    assert found.ratio == pytest.approx(min(errors.values()) / errors["1"], rel=1e-3)
    assert found.ratio < 0.5


def test_useless_statistics_scale_nothing(layer_block: LayerBlock) -> None:
    weight, inputs = outliers(2)
    for broken in (inputs * torch.nan, inputs * 0):
        block, linear = block_of(layer_block, weight, broken)
        Smoothquant(targets=("down",)).apply(block)
        block.check("smoothquant")
        assert torch.equal(block.quantized[linear.name].codes, quantize(weight, W8A8).codes)
        assert block.statuses[0].detail.startswith("not scaled")


def test_the_statistics_it_reads() -> None:
    rows = torch.randn(700, 8, generator=torch.Generator().manual_seed(3))
    for micro_batches in (1, 3, 50):
        peak, sample = (STATISTICS[name](8, torch.device("cpu")) for name in ("absmax", "sample"))
        for batch in rows.chunk(micro_batches):
            peak.update(batch, None)
            sample.update(batch, None)
        assert torch.equal(peak.value(), rows.abs().amax(0))
        kept = sample.value()
        assert min(512, 128 * micro_batches) == len(kept) or (micro_batches == 50 and len(kept) == 512)
        assert all(bool((rows == row).all(1).any()) for row in kept[::50])


def with_outliers(model: Path) -> Path:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if tensor.ndim == 1 and name.endswith("weight"):
            tensor *= torch.where(torch.rand(len(tensor), generator=generator) < 0.1, 20.0, 1.0)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


def simulated(path: Path, ids: Tensor) -> Tensor:
    """Logits with the activations of every W8A8 layer rounded per token."""
    source, model = WeightSource.open(path), load_model(path)
    for name in source.schemes:
        module = model.get_submodule(name)
        if not isinstance(module, TokenQuantLinear):
            model.set_submodule(name, TokenQuantLinear(module))
    with torch.no_grad():
        return model(ids)[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_saves_a_model_with_outlier_channels(
    model_type: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    model = with_outliers(make_decoder(tmp_path / "model", model_type))
    ids = torch.arange(5, 69).view(2, 32)
    with torch.no_grad():
        expected = load_model(model)(ids)[0]
    losses = {}
    for name, passes in {
        "w8a8": [{"pass": "w8a8"}],
        "smoothquant": [{"pass": "smoothquant"}],
        "then-gptq": [{"pass": "smoothquant", "quantize": False}, {"pass": "gptq", "scheme": "W8A8"}],
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "passes": passes}))
        out = compress_model(
            str(model),
            recipe=str(tmp_path / f"{name}.yaml"),
            output=tmp_path / name,
            calibration=str(pico_text),
            samples=12,
            length=32,
        )
        assert set(WeightSource.open(out).schemes.values()) == {W8A8}
        losses[name] = float((simulated(out, ids) - expected).square().mean())
    assert losses["smoothquant"] < 0.8 * losses["w8a8"]
    assert losses["then-gptq"] < 1.1 * losses["w8a8"]
    layers = read_json(tmp_path / "smoothquant" / "edgepress.json")["layers"]
    assert any(layer["detail"].startswith("factors x^") for layer in layers)


def test_a_scheme_without_activations_is_refused() -> None:
    from edgepress.compress.recipe import parse

    with pytest.raises(RecipeError, match="nothing to smooth"):
        parse({"passes": [{"pass": "smoothquant", "scheme": "W4A16-g32"}]}, "here")
