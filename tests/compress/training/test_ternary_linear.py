"""Ternary linears: BitNet's formulas a weight at a time, and what is computed is what is stored."""

from __future__ import annotations

import pytest
import torch
from edgepress.compress.scheme import Scheme
from edgepress.compress.training.ternary_linear import TernaryLinear, ternary
from torch import Tensor, nn


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(scheme: str, mask: Tensor | None = None, share: float = 1.0) -> TernaryLinear:
    module = TernaryLinear(random(6, 64), Scheme.parse(scheme), None, mask)
    module.share = share
    return module.requires_grad_(True)


@pytest.mark.parametrize("scheme", ["W2A16-g16", "W2A16-channel"])
def test_codes_are_absmean_rounding(scheme: str) -> None:
    module = linear(scheme)
    tensor = module.tensor()
    size = 16 if "g16" in scheme else 64
    for out in range(6):
        for group in range(64 // size):
            weights = module.latent[out, group].tolist()
            scale = sum(abs(weight) for weight in weights) / size
            assert float(tensor.scale[out, group]) == pytest.approx(scale, rel=1e-3)
            stored = float(tensor.scale[out, group])
            expected = [max(-1, min(1, round(weight / stored))) for weight in weights]
            assert tensor.codes[out, group * size : (group + 1) * size].tolist() == expected


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_rounding_grows_and_the_gradient_passes(share: float) -> None:
    mask = random(6, 64, seed=1) > -0.5
    module = linear("W2A16-g16", mask, share)
    dense = module.latent.detach().flatten(1) * mask
    expected = (1 - share) * dense + share * module.tensor().dequantize()
    torch.testing.assert_close(module.weight, expected)
    assert not bool(module.weight.detach()[~mask].any())
    gradient = random(6, 64, seed=2)
    module.weight.backward(gradient)  # type: ignore[no-untyped-call]
    assert module.latent.grad is not None
    assert torch.equal(module.latent.grad.flatten(1), gradient * mask)


def test_with_all_of_the_rounding_it_computes_what_it_stores() -> None:
    module = linear("W2A16-g16")
    stored = module.tensor()
    assert torch.equal(module.weight, stored.dequantize())
    assert set(stored.codes.unique().tolist()) == {-1, 0, 1}
    x = random(3, 64, seed=3)
    assert torch.equal(module(x), nn.functional.linear(x, stored.dequantize()))


def test_a_group_of_zeros_is_zero() -> None:
    tensor = ternary(torch.zeros(2, 2, 16), Scheme.parse("W2A16-g16"))
    assert not bool(tensor.codes.any()) and bool((tensor.scale == 1).all())
