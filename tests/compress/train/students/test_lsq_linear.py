"""LSQ: the paper's formulas, one weight at a time; and what training computes is what is stored."""

import math

import pytest
import torch
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.train.students.lsq_linear import LsqLinear, latent_of, on_its_side
from torch import Tensor

SCHEMES = ["W2A16-g16", "W3A16-g16", "W4A16_ASYM-g16", "W2A16_ASYM-channel", "W8A16-g32"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trainable(weight: Tensor, scheme: str, mask: Tensor | None = None) -> LsqLinear:
    module = LsqLinear(quantize(weight, Scheme.parse(scheme), "mse", mask=mask), None, weight, mask)
    with torch.no_grad():
        module.latent += 0.7 * module.scale.unsqueeze(-1) * random(*module.latent.shape, seed=1)
    module.requires_grad_(True)
    return module


def naive(module: LsqLinear, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight and gradients by the formulas of the paper's section 2, a weight at a time."""
    lowest, highest = module.scheme.code_range
    latent, scale = module.latent.detach(), module.scale.detach()
    weight, for_latent, for_scale = (
        torch.zeros_like(latent),
        torch.zeros_like(latent),
        torch.zeros_like(scale),
    )
    outs, groups, size = latent.shape
    grouped = gradient.view(latent.shape)
    for out in range(outs):
        for group in range(groups):
            step = float(scale[out, group])
            zero = 0.0 if module.zero_point is None else float(module.zero_point[out, group])
            for index in range(size):
                if module.mask is not None and not bool(module.mask[out, group, index]):
                    continue
                exact = float(latent[out, group, index] / scale[out, group])
                code = round(exact) + zero  # Python rounds half to even, as torch does
                upstream = float(grouped[out, group, index])
                if code < lowest or code > highest:
                    code = min(max(code, lowest), highest)
                    for_scale[out, group] += upstream * (code - zero)
                else:
                    for_latent[out, group, index] = upstream
                    for_scale[out, group] += upstream * (code - zero - exact)
                weight[out, group, index] = (code - zero) * step
    return weight.flatten(1), for_latent, for_scale / math.sqrt(size * highest)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("masked", [False, True])
def test_weight_and_gradients_are_the_papers(scheme: str, masked: bool) -> None:
    plain = random(6, 32)
    mask = random(6, 32, seed=5) > 0 if masked else None
    module, gradient = trainable(plain, scheme, mask), random(6, 32, seed=2)
    expected, for_latent, for_scale = naive(module, gradient)
    module.weight.backward(gradient)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(module.weight, expected)
    torch.testing.assert_close(module.latent.grad, for_latent)
    torch.testing.assert_close(module.scale.grad, for_scale, rtol=1e-4, atol=1e-5)
    assert bool((for_latent == 0).any()) or scheme.startswith("W8")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_it_computes_with_is_what_it_stores(scheme: str) -> None:
    mask = random(6, 32, seed=5) > -0.5
    module = trainable(random(6, 32), scheme, mask)
    stored = module.tensor()
    lowest, highest = stored.scheme.code_range
    assert bool(((stored.codes >= lowest) & (stored.codes <= highest)).all())
    assert torch.equal(module.weight, stored.dequantize())
    assert not bool(stored.dequantize()[~mask].any())
    x = random(3, 32, seed=3)
    assert torch.equal(module(x), torch.nn.functional.linear(x, stored.dequantize()))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("leaning", [False, True])
def test_it_begins_with_the_codes_it_is_given(scheme: str, leaning: bool) -> None:
    weight = random(6, 32)
    tensor = quantize(weight + 0.5 * random(6, 32, seed=4), Scheme.parse(scheme))
    module = LsqLinear(tensor, None, weight if leaning else None)
    assert torch.equal(module.tensor().codes, tensor.codes)
    middle = latent_of(tensor)
    assert torch.equal(module.latent, middle) != leaning
    near, far = ((start.flatten(1) - weight).abs() for start in (module.latent, middle))
    assert bool((near <= far + 1e-6).all())


@pytest.mark.parametrize(
    ("start", "now", "expected"),
    [
        (1.0, 2.0, 2.0),
        (1.0, -2.0, 1 / 16),
        (1.0, 0.01, 1 / 16),
        (-1.0, -2.0, -2.0),
        (-1.0, 2.0, -1 / 16),
        (-1.0, -0.01, -1 / 16),
    ],
)
def test_no_scale_crosses_zero(start: float, now: float, expected: float) -> None:
    assert float(on_its_side(torch.tensor([now]), torch.tensor([start]))) == expected
