"""GPTQ: against a column-by-column loop on the full inverse, its objective, and twelve shapes of trouble."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepress.compress.numbers.grid import fit_grid, quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.passes.gptq import Gptq
from edgepress.compress.pipeline.block import Block, output_error
from edgepress.compress.solve.column_recursion import quantize_in_order
from edgepress.compress.solve.damped_cholesky import factorize
from torch import Tensor

LayerBlock = Callable[[Tensor, Tensor], tuple[Block, Any]]

SCHEMES = ["W4A16-g16", "W3A16-g32", "W2A16_ASYM-g16", "W4A16-channel", "W8A16-g32"]


def problem(
    seed: int = 0, out_features: int = 24, in_features: int = 64, rows: int = 512
) -> tuple[Tensor, Tensor]:
    """A weight and the Gram of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(in_features, in_features, generator=generator)
    inputs = torch.randn(rows, in_features, generator=generator) @ mixing
    weight = torch.randn(out_features, in_features, generator=generator)
    return weight, inputs.T @ inputs / rows


def doubled(seed: int) -> tuple[Tensor, Tensor]:
    """The problem in float64: two orders of sums differ by 1e-12 of a step, and no code lies so near a tie.
    In float32 a tie decides one code, and that one the rest of its row.
    """
    weight, gram = problem(seed)
    return weight.double(), gram.double()


def grid_of(weight: Tensor, gram: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor | None]:
    """The grid that float32 weights get, in the type of ``weight``."""
    scale, zero = fit_grid(weight.float(), scheme, "mse", gram.diagonal().float())
    return scale.to(weight.dtype), None if zero is None else zero.to(weight.dtype)


def naive(weight: Tensor, gram: Tensor, order: Tensor, scheme: Scheme, damping: float) -> Tensor:
    """Optimal brain quantization in a fixed order: each column done leaves the inverse Hessian."""
    scale, zero = grid_of(weight, gram, scheme)
    size = weight.shape[1] // scale.shape[1]
    work = weight.double().clone()
    hessian = gram.double() + damping * gram.diagonal().double().mean() * torch.eye(gram.shape[0])
    inverse = torch.linalg.inv(hessian)
    lowest, highest = scheme.code_range
    result = torch.zeros_like(work)
    for column in order.tolist():
        step = scale[:, column // size].double()
        offset = 0.0 if zero is None else zero[:, column // size].double()
        code = ((work[:, column] / step).round() + offset).clamp(lowest, highest)
        result[:, column] = (code - offset) * step
        error = (work[:, column] - result[:, column]) / inverse[column, column]
        work -= error[:, None] * inverse[column][None, :]
        pivot = inverse[column].clone()
        inverse -= torch.outer(pivot, pivot) / pivot[column]
    return result


def run(weight: Tensor, gram: Tensor, scheme: Scheme, *, ordered: bool = True, block: int = 16) -> QTensor:
    order = torch.arange(gram.shape[0])
    if ordered:
        order = torch.sort(gram.diagonal(), descending=True, stable=True).indices
    factor = factorize(gram[order][:, order], 0.01)
    assert factor is not None
    return quantize_in_order(weight, *grid_of(weight, gram, scheme), factor, order, scheme, block=block)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("ordered", [True, False])
def test_equals_the_naive_loop(name: str, ordered: bool) -> None:
    weight, gram = doubled(0)
    scheme = Scheme.parse(name)
    order = torch.arange(64)
    if ordered:
        order = torch.sort(gram.diagonal(), descending=True, stable=True).indices
    expected = naive(weight, gram, order, scheme, 0.01)
    got = run(weight, gram, scheme, ordered=ordered).dequantize()
    torch.testing.assert_close(got.double(), expected)


@pytest.mark.parametrize("block", [1, 7, 64, 200])
def test_the_block_size_does_not_change_the_result(block: int) -> None:
    weight, gram = doubled(1)
    scheme = Scheme.parse("W4A16-g16")
    one, other = run(weight, gram, scheme, block=16), run(weight, gram, scheme, block=block)
    assert torch.equal(one.codes, other.codes)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("seed", range(3))
def test_beats_rounding_on_its_own_objective(name: str, seed: int) -> None:
    weight, gram = problem(seed)
    scheme = Scheme.parse(name)
    rounded = quantize(weight, scheme, "mse", gram.diagonal()).dequantize()
    solved = run(weight, gram, scheme).dequantize()
    assert output_error(solved - weight, weight, gram) < 0.9 * output_error(rounded - weight, weight, gram)


def test_what_the_recursion_leaves_is_the_error_under_the_damped_gram() -> None:
    weight, gram = doubled(5)
    scheme, order, left = Scheme.parse("W4A16-g16"), torch.randperm(64), torch.zeros(24, dtype=torch.double)
    factor = factorize(gram, 0.01, order)
    assert factor is not None
    tensor = quantize_in_order(weight, *grid_of(weight, gram, scheme), factor, order, scheme, left=left)
    change = tensor.dequantize().double() - weight
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(64)
    torch.testing.assert_close(left, ((change @ damped) * change).sum(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", ["dead channel", "duplicate columns", "fewer tokens than channels"])
def test_the_status_tells_the_error_of_the_outputs(shape: str, layer_block: LayerBlock) -> None:
    few = torch.randn(20, 64, generator=torch.Generator().manual_seed(8))
    cases = trouble() | {"fewer tokens than channels": (problem(6)[0], few.T @ few / 20, set())}
    weight, gram, _ = cases[shape]
    block, linear = layer_block(weight.clone(), gram)
    Gptq(scheme="W3A16-g32", targets=("down",)).apply(block)
    change = block.quantized[linear.name].dequantize() - weight
    assert block.statuses[0].error == pytest.approx(output_error(change, weight, gram), rel=1e-3)


def test_factor_is_the_cholesky_factor_of_the_inverse() -> None:
    _, gram = problem(2)
    factor = factorize(gram, 0.01)
    assert factor is not None and factor.damping == 0.01
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(64)
    assert torch.equal(factor.upper, factor.upper.triu())
    assert torch.allclose(factor.upper.T @ factor.upper @ damped, torch.eye(64), atol=1e-3)


def test_masked_weights_stay_zero() -> None:
    weight, gram = problem(3)
    for name in SCHEMES:
        scheme = Scheme.parse(name)
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) > 0.5
        order = torch.arange(64)
        factor = factorize(gram, 0.01)
        assert factor is not None
        grid = fit_grid(weight * mask, scheme)
        tensor = quantize_in_order(weight * mask, *grid, factor, order, scheme, mask=mask)
        assert bool((tensor.dequantize()[~mask] == 0).all())


def trouble() -> dict[str, tuple[Tensor, Tensor, set[str]]]:
    weight, gram = problem(4)
    dead = gram.clone()
    dead[5] = 0
    dead[:, 5] = 0
    direction = torch.randn(64, generator=torch.Generator().manual_seed(9))
    twin = gram.clone()
    twin[7] = twin[6]
    twin[:, 7] = twin[:, 6]
    negative = gram - 2 * gram.diagonal().mean() * torch.eye(64)
    nan = gram.clone()
    nan[0, 0] = torch.nan
    outlier = gram.clone()
    outlier[3] *= 1e4
    outlier[:, 3] *= 1e4
    huge_weight = weight.clone()
    huge_weight[0, 0] = 1e4
    ok, any_repair = {"ok"}, {"ok", "damped"}
    return {
        "dead channel": (weight, dead, ok),
        "rank one": (weight, torch.outer(direction, direction), any_repair),
        "duplicate columns": (weight, twin, any_repair),
        "all zero": (weight, torch.zeros(64, 64), {"fallback-rtn"}),
        "indefinite": (weight, negative, {"damped", "fallback-rtn"}),
        "not a number": (weight, nan, {"fallback-rtn"}),
        "infinite": (weight, gram * torch.inf, {"fallback-rtn"}),
        "outlier channel": (weight, outlier, any_repair),
        "tiny": (weight, gram * 1e-30, any_repair),
        "large": (weight, gram * 1e30, any_repair),
        "outlier weight": (huge_weight, gram, ok),
        "zero weight": (torch.zeros_like(weight), gram, ok),
    }


FURTHER: dict[str, Any] = {"correction": 1, "sequential": True, "refinements": 2}


@pytest.mark.parametrize("options", [{}, FURTHER], ids=["plain", "further"])
@pytest.mark.parametrize("case", trouble())
def test_trouble_ends_in_a_sound_layer_and_an_honest_status(
    case: str, options: dict[str, Any], layer_block: LayerBlock
) -> None:
    weight, gram, statuses = trouble()[case]
    block, linear = layer_block(weight, gram)
    Gptq(scheme="W4A16-g16", targets=("down",), **options).apply(block)
    block.check("gptq")
    (status,) = block.statuses
    assert status.status in statuses
    assert (status.status == "ok") == (status.detail == "")
    restored = block.quantized[linear.name].dequantize()
    assert bool(torch.isfinite(restored).all())
    if status.degraded:
        assert torch.equal(restored, quantize(weight, Scheme.parse("W4A16-g16")).dequantize())


def test_a_dead_channel_keeps_its_rounded_weights(layer_block: LayerBlock) -> None:
    weight, gram, _ = trouble()["dead channel"]
    block, linear = layer_block(weight, gram)
    Gptq(scheme="W4A16-g16", targets=("down",)).apply(block)
    column = block.quantized[linear.name].dequantize()[:, 5]
    step = block.quantized[linear.name].scale[:, 0]
    assert bool(((column - weight[:, 5]).abs() <= torch.maximum(step, weight[:, 5].abs() - 7 * step)).all())
    assert bool((column != 0).any())


def test_same_input_same_bytes() -> None:
    weight, gram = problem(5)
    first, second = (run(weight, gram, Scheme.parse("W4A16-g16")) for _ in range(2))
    assert torch.equal(first.codes, second.codes) and torch.equal(first.scale, second.scale)


@pytest.mark.parametrize("name", SCHEMES)
def test_refinements_lessen_the_error_that_the_status_tells(name: str, layer_block: LayerBlock) -> None:
    weight, gram = problem(6)
    errors = []
    for rounds in (0, 1, 4):
        block, _ = layer_block(weight, gram)
        Gptq(scheme=name, targets=("down",), refinements=rounds).apply(block)
        errors.append(block.statuses[0].error)
    assert errors[2] <= errors[1] * (1 + 1e-5) and errors[1] < errors[0]


@pytest.mark.chain
@pytest.mark.parametrize("options", [FURTHER, {"refinements": 1}, {"sequential": True}, {"correction": 0.5}])
def test_masks_hold_through_every_option(options: dict[str, Any], layer_block: LayerBlock) -> None:
    weight, gram = problem(7)
    for name in SCHEMES:
        mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) > 0.5
        block, linear = layer_block(weight * mask, gram)
        block.masks[linear.name] = mask
        Gptq(scheme=name, targets=("down",), **options).apply(block)
        block.check("gptq")


def distance(original: Path, compressed: Path, text: Path) -> float:
    """Squared distance of the logits of two decoders on the calibration text."""
    from edgepress.compress.model.torch_model import load_model
    from edgepress.compress.text.calibration import calibration_from
    from edgepress.runtime.text.tokenizer import Tokenizer

    tokens = calibration_from(
        str(text), Tokenizer.open(original), kind="decoder", batch_size=8, samples=24, length=32
    )
    with torch.no_grad():
        logits = [
            torch.cat([load_model(path)(batch.input_ids).logits for batch in tokens.batches])
            for path in (original, compressed)
        ]
    return float((logits[0] - logits[1]).square().mean())


@pytest.mark.chain
@pytest.mark.parametrize("scheme", ["W3A16-g32", "W8A8", "T3A16"])
def test_a_correction_brings_the_model_closer(
    scheme: str, make_decoder: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    """Through whole sweeps: the later a layer, the more there is to make up for, and each error once."""
    import yaml
    from edgepress.compress.api import compress_model

    model = make_decoder(tmp_path / "model", num_hidden_layers=5)

    def compressed(name: str, **options: Any) -> float:
        recipe = {"name": name, "passes": [{"pass": "gptq", "scheme": scheme, **options}]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        out = compress_model(
            str(model),
            recipe=str(tmp_path / f"{name}.yaml"),
            output=tmp_path / name,
            calibration=str(pico_text),
            samples=24,
            length=32,
        )
        return distance(model, out, pico_text)

    plain = compressed("plain")
    corrected = compressed("corrected", correction=1)
    assert corrected < 0.95 * plain
    assert corrected == compressed("sequential", correction=1, sequential=True)  # it is so by itself
