"""Losses behind factors that awq would fold: those of the weight and the inputs as the factors make them."""

from pathlib import Path

import pytest
import torch
from edgepress.compress.measure.sensitivity import ChangeLosses
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.solve.folding import powers
from edgepress.compress.solve.gptq_losses import FoldedGptqLosses, GptqChangeLosses, folded
from edgepress.compress.solve.links import Link
from torch import Tensor

SCHEMES = [Scheme.parse(name) for name in ("W2A16-g32", "W4A16-g32", "W8A16-g32")]
TOKENS, OUT, IN = 300, 24, 64


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """A weight, inputs of which few channels are large, and gradients of outputs."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(TOKENS, IN, generator=generator)
    inputs[:, ::13] *= 20
    weight = torch.randn(OUT, IN, generator=generator)
    return weight, inputs, torch.randn(TOKENS, OUT, generator=generator)


def losses(observer: ChangeLosses, weight: Tensor, inputs: Tensor, gradient: Tensor) -> Tensor:
    """What it finds of a text that it has looked at before."""
    if isinstance(observer, GptqChangeLosses):
        observer.look(inputs)
        observer.end_of_looking()
    real = torch.ones(TOKENS, dtype=torch.bool)
    observer.observe(inputs, inputs @ weight.T, real)(gradient)
    return observer.found(TOKENS, 0.5 / TOKENS)


def link_of(path: Path) -> Link:
    """That from the norm of the first block, for any reader: it repeats no channels."""
    block = WeightSource.open(path).anatomy.blocks[0]
    maker = folded(block)(block.attention.q.name, torch.zeros(OUT, IN), SCHEMES)
    assert isinstance(maker, FoldedGptqLosses)
    return maker.link


def test_they_are_those_of_what_the_factors_make_of_weight_and_inputs(pico_llama: Path) -> None:
    weight, inputs, gradient = drawn()
    observer = FoldedGptqLosses("x", weight, SCHEMES, link=link_of(pico_llama))
    found = losses(observer, weight, inputs, gradient)
    factors = observer.factors
    assert not torch.equal(factors, torch.ones(IN))
    scaled, divided = weight * factors, inputs / factors
    wanted = losses(GptqChangeLosses("x", scaled, SCHEMES), scaled, divided, gradient)
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=1e-9)  # a last bit of the Gram may move a code
    plain = losses(GptqChangeLosses("x", weight, SCHEMES), weight, inputs, gradient)
    assert bool((found < torch.tensor([0.95, 0.8, 0.8]) * plain).all())


def test_factors_are_the_power_that_rounds_best(pico_llama: Path) -> None:
    weight, inputs, gradient = drawn()
    observer = FoldedGptqLosses("x", weight, SCHEMES, link=link_of(pico_llama))
    losses(observer, weight, inputs, gradient)
    power = inputs.square().sum(0)

    def lost(factors: Tensor) -> float:
        scaled = weight * factors
        rounded = quantize(scaled, SCHEMES[1], "mse", power / factors.square())
        return float(((rounded.dequantize() / factors - weight).square() @ power).sum())

    tried = [factors for _, factors in powers(power.sqrt(), weight.square().mean(0).sqrt())]
    best = min(tried, key=lost)
    torch.testing.assert_close(observer.factors, best, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("model", "scaled"), [("pico_llama", 7), ("pico_bert", 1)])
def test_only_what_something_feeds_alone_is_scaled(
    model: str, scaled: int, request: pytest.FixtureRequest
) -> None:
    block = WeightSource.open(request.getfixturevalue(model)).anatomy.blocks[0]
    make = folded(block)
    made = [make(one.name, torch.zeros(2, one.in_features), SCHEMES) for one in block.linears()]
    assert sum(isinstance(one, FoldedGptqLosses) for one in made) == scaled


def test_inputs_that_are_all_zero_or_none_leave_the_weight_as_it_is(pico_llama: Path) -> None:
    weight, _, gradient = drawn()
    for value in (0.0, float("nan")):
        observer = FoldedGptqLosses("x", weight, SCHEMES, link=link_of(pico_llama))
        losses(observer, weight, torch.full((TOKENS, IN), value), gradient)
        assert torch.equal(observer.factors, torch.ones(IN)) and torch.equal(observer.weight, weight)
