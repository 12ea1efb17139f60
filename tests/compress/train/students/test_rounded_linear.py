"""Codebooks: their formulas a weight at a time; and linears that compute what they store."""

import pytest
import torch
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.train.students.rounded_linear import (
    Codebook,
    RoundedLinear,
    binary,
    elastic,
    minmax,
    ternary,
    ternary_of_matrix,
)
from torch import Tensor, nn


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(
    scheme: str, mask: Tensor | None = None, share: float = 1.0, codebook: Codebook = ternary
) -> RoundedLinear:
    module = RoundedLinear(random(6, 64), Scheme.parse(scheme), codebook, None, mask)
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


def test_binary_codes_are_signs() -> None:
    weight = random(3, 4, 16)
    mask = random(3, 4, 16, seed=1) > -0.5
    tensor = binary(weight, Scheme.parse("W2A16-g16"), mask)
    expected = [
        [int(kept) * (1 if one >= 0 else -1) for one, kept in zip(row, mask_row, strict=True)]
        for row, mask_row in zip(weight.flatten(1).tolist(), mask.flatten(1).tolist(), strict=True)
    ]
    assert tensor.codes.tolist() == expected
    torch.testing.assert_close(tensor.scale, weight.abs().mean(-1), rtol=1e-3, atol=0)


def test_a_matrix_has_one_scale() -> None:
    weight = random(3, 4, 16)
    tensor = ternary_of_matrix(weight, Scheme.parse("W2A16-g16"))
    assert len(tensor.scale.unique()) == 1 and tensor.scale.shape == (3, 4)
    assert float(tensor.scale[0, 0]) == pytest.approx(float(weight.abs().mean()), rel=1e-3)


def test_elastic_cells_are_thirds_of_the_range() -> None:
    weight = random(3, 4, 16)
    tensor = elastic(weight, Scheme.parse("W2A16-g16"))
    largest = weight.abs().amax(-1)
    torch.testing.assert_close(tensor.scale, largest * 2 / 3, rtol=1e-3, atol=0)
    third = (weight / largest.unsqueeze(-1)).flatten(1)
    clear = (third.abs() - 1 / 3).abs() > 1e-2
    assert torch.equal((tensor.codes != 0) & clear, (third.abs() > 1 / 3) & clear)


@pytest.mark.parametrize("scheme", ["W3A16-g16", "W4A16_ASYM-g16", "W8A16-channel"])
def test_minmax_spans_what_the_weight_has_now(scheme: str) -> None:
    module = linear(scheme, codebook=minmax)
    for factor in (1.0, 3.0):
        module.latent.data.mul_(factor)
        tensor = module.tensor()
        assert torch.equal(module.weight, tensor.dequantize())
        off = (tensor.dequantize().view(module.latent.shape) - module.latent).abs()
        # An end of the range may fall half a step outside of the codes.
        assert bool((off <= 1.01 * tensor.scale.unsqueeze(-1)).all())
