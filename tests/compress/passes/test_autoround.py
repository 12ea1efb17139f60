"""SignRound: against a plain autograd loop, and what always holds: closer than the start, masks kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from edgepress.compress.api import compress_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.qtensor import QTensor
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve import block_descent
from edgepress.compress.solve.learned_rounding import LearnedRounding
from edgepress.errors import OutOfResource
from edgepress.files.hashed_tree import hash_tree
from edgepress.files.storage import read_json, sha256_file
from torch import Tensor

pytestmark = pytest.mark.chain


SCHEMES = ["W4A16-g16", "W3A16-g32", "W2A16-g16", "W2A16_ASYM-g16", "W4A16_ASYM-channel"]
SIZE: dict[str, Any] = {"samples": 24, "length": 32}


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def within(value: Tensor, lowest: int, highest: int) -> Tensor:
    """Clamped; the bounds themselves learn, which those of ``clamp`` do not from torch 2.15 on."""
    outside = (value < lowest) | (value > highest)
    return torch.where(outside, value.detach().clamp(lowest, highest), value)


def naive_weight(weight: Tensor, start: QTensor, offset: Tensor, clip: Tensor, mask: Tensor | None) -> Tensor:
    """SignRound's quantizer written down in full, for autograd."""
    lowest, highest = start.scheme.code_range
    rounded: Any = Round.apply
    if start.zero_point is None:
        scale, zero = start.scale * clip[0], torch.zeros_like(start.scale)
    else:
        zero = start.zero_point.float()
        low, high = (lowest - zero) * start.scale * clip[0], (highest - zero) * start.scale * clip[1]
        scale = (high - low) / (highest - lowest)
        zero = within(rounded(lowest - low / scale), lowest, highest)
    if clip is not None:
        scale = scale + (scale.half().float() - scale).detach()
    size = weight.shape[1] // scale.shape[1]
    wide, wide_zero = scale.repeat_interleave(size, 1), zero.repeat_interleave(size, 1)
    position = rounded(weight / wide + offset)
    steps = within(position + wide_zero, lowest, highest) - wide_zero
    result = steps * wide
    return result if mask is None else result * mask


def naive_step(
    state: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor], rate: float
) -> tuple[Tensor, Tensor]:
    """The offsets and clip factors after one step against the signs."""
    (offset, clip), (by_offset, by_clip) = state, gradients
    return (
        (offset - rate * by_offset.sign()).clamp(-0.5, 0.5),
        (clip - rate * by_clip.sign()).clamp(0.5, 1.5),
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", SCHEMES)
def test_learns_as_the_naive_loop_does(name: str, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 64, generator=generator)
    inputs = torch.randn(40, 64, generator=generator)
    mask = torch.rand(12, 64, generator=generator) < 0.5 if masked else None
    weight = weight if mask is None else weight * mask
    start = quantize(weight, Scheme.parse(name), mask=mask)
    learned = LearnedRounding(weight, start, mask)
    wanted, steps, written = inputs @ weight.T, 4, torch.empty_like(weight)
    for step in range(steps):
        rate = 0.61 * (1 - step / steps) / steps  # no fraction that makes ties
        offset, clip = (part.clone().requires_grad_(True) for part in (learned.offset, learned.clip))
        made = naive_weight(weight, start, offset.view_as(weight), clip, mask)
        loss = (inputs @ made.T - wanted).square().sum()
        gradients = torch.autograd.grad(loss, [offset, clip])
        after = naive_step((offset.detach(), clip.detach()), gradients, rate)
        learned.write(written)
        learned.learn(2 * (inputs @ (written - weight).T).T @ inputs, rate, rate)
        for mine, theirs, gradient in zip((learned.offset, learned.clip), after, gradients, strict=True):
            # Sums of 40 products in float32 are good to 40 × 6e-8 of the largest: such a sign is certain.
            certain = (gradient == 0) | (gradient.abs() > 1e-5 * gradient.abs().max())
            torch.testing.assert_close(mine[certain], theirs[certain])
            assert bool(certain.float().mean() > 0.99)
    expected = naive_weight(weight, start, learned.offset.view_as(weight), learned.clip, mask)
    learned.write(written)
    torch.testing.assert_close(written, expected)
    torch.testing.assert_close(learned.tensor().dequantize(), written)


def compressed(model: Path, folder: Path, text: Path, *passes: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "r", "passes": list(passes)}))
    return compress_model(str(model), recipe=str(recipe), output=folder / "o", calibration=str(text), **SIZE)


Distance = Callable[[Path, Path, Path], float]
AUTOROUND: dict[str, Any] = {"pass": "autoround", "precision": "float32", "iterations": 24}


@pytest.mark.parametrize(
    "scheme",
    ["W2A16_ASYM-g16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("W3A16-g32", "W8A8"))],
)
def test_the_model_comes_closer_than_by_rounding(
    pico_llama: Path, pico_text: Path, tmp_path: Path, scheme: str, distance: Distance
) -> None:
    step = {**AUTOROUND, "scheme": scheme}
    start = compressed(pico_llama, tmp_path / "start", pico_text, {**step, "iterations": 0})
    learned = compressed(pico_llama, tmp_path / "learned", pico_text, step)
    # Over six draws of the weights the ratio is 0.17 to 0.44, with a standard deviation of 0.04 at most.
    left, before = (distance(pico_llama, path, pico_text) for path in (learned, start))
    assert left < 0.8 * before


def test_an_encoder_with_padding_and_low_memory(
    pico_bert: Path, pico_text: Path, tmp_path: Path, distance: Distance
) -> None:
    step = {**AUTOROUND, "scheme": "W3A16-g32", "loss": "mse"}
    rounded = compressed(pico_bert, tmp_path / "rounded", pico_text, {**step, "iterations": 0})
    whole = compressed(pico_bert, tmp_path / "whole", pico_text, step)
    alone = compressed(pico_bert, tmp_path / "alone", pico_text, {**step, "low_memory": True})
    # Over six draws of the weights the ratio is 0.15, with a standard deviation of 0.04.
    left, before, other = (distance(pico_bert, path, pico_text) for path in (whole, rounded, alone))
    assert left < 0.8 * before
    assert other == pytest.approx(left, rel=0.2)


def test_a_block_that_does_not_fit_is_learned_a_sequence_at_a_time(
    pico_llama: Path, pico_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = block_descent.block_output, 1

    def output(module: Any, batch: Any) -> Tensor:
        if torch.is_grad_enabled() and len(batch.hidden) > room:
            raise torch.OutOfMemoryError("not so much at once")
        return real(module, batch)

    step = {**AUTOROUND, "scheme": "W3A16-g32", "iterations": 4}
    alone = compressed(pico_llama, tmp_path / "alone", pico_text, {**step, "low_memory": True})
    monkeypatch.setattr(block_descent, "block_output", output)
    small = compressed(pico_llama, tmp_path / "small", pico_text, step)
    assert sha256_file(small / "model.safetensors") == sha256_file(alone / "model.safetensors")
    room = 0
    with pytest.raises(OutOfResource, match="--length"):
        compressed(pico_llama, tmp_path / "none", pico_text, step)


def test_it_goes_on_from_the_codes_of_gptq(
    pico_llama: Path, pico_text: Path, tmp_path: Path, distance: Distance
) -> None:
    gptq = {"pass": "gptq", "scheme": "W3A16-g32"}
    step = {**AUTOROUND, "scheme": "W3A16-g32", "requantize": True}
    first = compressed(pico_llama, tmp_path / "gptq", pico_text, gptq)
    same = compressed(pico_llama, tmp_path / "same", pico_text, gptq, {**step, "iterations": 0})
    better = compressed(pico_llama, tmp_path / "better", pico_text, gptq, step)
    one, other = WeightSource.open(first), WeightSource.open(same)
    for name in one.schemes:
        mine, theirs = one.linear(name), other.linear(name)
        assert isinstance(mine, QTensor) and isinstance(theirs, QTensor)
        assert torch.equal(mine.codes, theirs.codes) and torch.equal(mine.scale, theirs.scale)
    assert distance(pico_llama, better, pico_text) < distance(pico_llama, first, pico_text)


def test_layers_of_several_widths_learn_together(pico_llama: Path, pico_text: Path, tmp_path: Path) -> None:
    using = {**AUTOROUND, "iterations": 8}
    step = {"pass": "allocate", "bits": 3.5, "schemes": ["W2A16-g32", "W4A16-g32"], "using": using}
    path = compressed(pico_llama, tmp_path, pico_text, step)
    source = WeightSource.open(path)
    details = read_json(path / "edgepress.json")["steps"][0]["details"]
    assert {name: scheme.name for name, scheme in source.schemes.items()} == details["allocation"]
    assert set(details["allocation"].values()) == {"W2A16-g32", "W4A16-g32"}
    layers = read_json(path / "edgepress.json")["layers"]
    assert all("step" in layer["detail"] or "start" in layer["detail"] for layer in layers)


def test_pruned_weights_stay_zero_and_two_runs_are_equal(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    passes = [
        {"pass": "magnitude", "sparsity": 0.5},
        {**AUTOROUND, "scheme": "W3A16_ASYM-g32", "iterations": 8},
    ]
    one, other = (compressed(pico_llama, tmp_path / name, pico_text, *passes) for name in "ab")
    assert hash_tree(one) == hash_tree(other)
    source = WeightSource.open(one)
    for linear in source.anatomy.linears():
        assert float((source.dense(linear.name) == 0).float().mean()) >= 0.49
