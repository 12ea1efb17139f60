"""QuantLinear: its product and its gradients against torch's own on the dequantized weight."""

from dataclasses import replace

import pytest
import torch
from edgepress.compress.numbers.grid import quantize
from edgepress.compress.numbers.scheme import Scheme
from edgepress.compress.train.students.quant_linear import QuantLinear
from edgepress.runtime.kernels.library import library
from torch.nn import functional


def layer(scheme: str, *, bias: bool = True) -> QuantLinear:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 64, generator=generator)
    return QuantLinear(
        quantize(weight, Scheme.parse(scheme)), torch.randn(24, generator=generator) if bias else None
    )


@pytest.mark.parametrize("scheme", ["W2A16-g32", "W3A16_ASYM-g16", "W4A16-channel", "W8A16_ASYM-g64"])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_with_the_dequantized_weight(scheme: str, bias: bool) -> None:
    quantized = layer(scheme, bias=bias)
    x = torch.randn(3, 5, 64)
    expected = functional.linear(x, quantized.tensor().dequantize(), quantized.bias)
    torch.testing.assert_close(quantized(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(library() is None, reason="the operators were not built")
def test_it_computes_with_the_levels_of_a_trellis_and_learns_its_scales() -> None:
    tensor = quantize(torch.randn(24, 64, generator=torch.Generator().manual_seed(0)), Scheme.parse("T3A16"))
    quantized = QuantLinear(tensor, None)
    assert torch.equal(quantized.tensor(tensor.codes).dequantize(), tensor.dequantize())
    quantized.scale.requires_grad_(True)
    x, target = torch.randn(7, 64, requires_grad=True), torch.randn(7, 24)
    (quantized(x) - target).square().sum().backward()
    scale, y = tensor.scale.clone().requires_grad_(True), x.detach().clone().requires_grad_(True)
    weight = scale * replace(tensor, scale=torch.ones_like(tensor.scale)).dequantize()
    (functional.linear(y, weight) - target).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quantized.scale.grad, scale.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scheme", ["W3A16-g32", "W4A16_ASYM-g16"])
def test_its_gradients_are_those_of_the_expression_it_stands_for(scheme: str) -> None:
    quantized = layer(scheme)
    parameters = [p for p in (quantized.scale, quantized.zero_point, quantized.bias) if p is not None]
    for parameter in parameters:
        parameter.requires_grad_(True)
    x, target = torch.randn(7, 64, requires_grad=True), torch.randn(7, 24)
    (quantized(x) - target).square().sum().backward()
    found = [x.grad, *(parameter.grad for parameter in parameters)]

    copies = [p.detach().clone().requires_grad_(True) for p in parameters]
    y = x.detach().clone().requires_grad_(True)
    zero = copies[1].unsqueeze(-1) if quantized.zero_point is not None else 0.0
    steps = quantized.codes.view(*copies[0].shape, -1).float() - zero
    weight = (steps * copies[0].unsqueeze(-1)).view(24, 64)
    (functional.linear(y, weight, copies[-1]) - target).square().sum().backward()
    for mine, reference in zip(found, [y.grad, *(copy.grad for copy in copies)], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


def test_autocast_computes_in_bfloat16_and_learns_in_float32() -> None:
    quantized = layer("W4A16-g32")
    quantized.scale.requires_grad_(True)
    x = torch.randn(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out = quantized(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert quantized.scale.grad is not None and quantized.scale.grad.dtype == torch.float32
    torch.testing.assert_close(out.float(), quantized(x).detach(), rtol=0.05, atol=0.1)
