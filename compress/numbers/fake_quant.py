"""Fake quantization: what a quantized layer does to its inputs, in float. The reference for kernels that
compute in few bits, and what layers read in training.

The rules are compressed-tensors', so that both give the same numbers: of integers per token, 256 levels and
``scale = absmax / 127.5``; of FP8 per token, absmax over the largest number; of both per tensor, the scale
found in calibration; of MXFP4, a power of two a block; of NVFP4, E4M3 scales that count in a power of two
found in calibration. Gradients pass by the straight-through estimator: Bengio, Léonard, Courville 2013,
"Estimating or Propagating Gradients Through Stochastic Neurons", arXiv 1308.3432.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .qtensor import block_scales, nearest, power_of_two, unit_of
from .scheme import E2M1_LARGEST, E4M3_LARGEST, Scheme


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded``, with the gradient of ``value``; both of one shape."""
    return _StraightThrough.apply(value, rounded.detach())  # type: ignore[no-any-return]


HALF_RANGE = 127.5  # of int8
_TINY = torch.finfo(torch.float32).tiny


def quantize_tokens(rows: Tensor, bits: int = 8) -> Tensor:
    """Round each token's row ``[…, in]`` to codes of ``bits``, int8 by default, and return what they stand
    for.
    """
    levels = 1 << bits
    scale = (rows.abs().amax(-1, keepdim=True) / ((levels - 1) / 2)).clamp_(min=_TINY)
    return (rows / scale).round_().clamp_(-levels // 2, levels // 2 - 1).mul_(scale)


class TokenQuantLinear(nn.Module):
    """A linear whose inputs are rounded, by default per token, before the product; the gradient passes
    straight through.
    """

    def __init__(self, linear: nn.Module, rounding: Callable[[Tensor], Tensor] = quantize_tokens) -> None:
        super().__init__()
        self.linear, self.rounding = linear, rounding

    @property
    def weight(self) -> Tensor:
        """The weight ``[out, in]`` of the linear."""
        return self.linear.weight  # type: ignore[return-value]

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear(straight_through(rows, self.rounding(rows.detach())))  # type: ignore[no-any-return]


def wrap(root: nn.Module, name: str, rounding: Callable[[Tensor], Tensor] = quantize_tokens) -> None:
    """Replace the linear ``name`` below ``root`` by one that rounds its inputs, by default per token."""
    linear = root.get_submodule(name)
    if not isinstance(linear, TokenQuantLinear):
        root.set_submodule(name, TokenQuantLinear(linear, rounding))


def unwrap(root: nn.Module, name: str) -> None:
    """Undo :func:`wrap`; the weight may have been replaced meanwhile."""
    wrapped = root.get_submodule(name)
    if isinstance(wrapped, TokenQuantLinear):
        root.set_submodule(name, wrapped.linear)


Rounding = Callable[[Tensor], Tensor]


def rounding_of(scheme: Scheme, input_scale: float | None) -> Rounding:
    """From rows ``[…, in]`` to what their codes stand for, as ``scheme`` says; ``input_scale`` is that of the
    :class:`~edgepress.compress.numbers.qtensor.QTensor`.
    """
    if scheme.format == "int":
        return quantize_tokens if input_scale is None else partial(int8_rows, scale=input_scale)
    if scheme.format == "fp8":
        return fp8_tokens if input_scale is None else partial(fp8_rows, scale=input_scale)
    if scheme.format == "mxfp4":
        return partial(_blocks, size=32, scale_of=power_of_two)
    assert input_scale is not None, "the scales of NVFP4 activations count in a unit that calibration finds"
    return partial(_blocks, size=16, scale_of=partial(_nvfp4_scale, unit=input_scale))


def input_scale_of(scheme: Scheme, absmax: Tensor) -> float | None:
    """The ``input_scale`` for inputs whose largest magnitudes are ``absmax [in]``; None where none is needed.

    A layer whose calibration inputs are all zero, or not finite, gets 1.
    """
    if not scheme.calibrated:
        return None
    largest = float(absmax.max())
    if not 0 < largest < float("inf"):
        return 1.0
    if scheme.format == "nvfp4":
        return unit_of(largest / E2M1_LARGEST)
    if scheme.format == "int":
        return float(torch.tensor(largest / HALF_RANGE))
    return float(torch.tensor(largest / E4M3_LARGEST, dtype=torch.bfloat16))


def int8_rows(rows: Tensor, scale: Tensor | float) -> Tensor:
    """``rows`` in int8 with the given ``scale``; what is beyond the range becomes its end."""
    return (rows / scale).round().clamp(-128, 127) * scale


def fp8_tokens(rows: Tensor) -> Tensor:
    """Each token's row ``[…, in]`` in E4M3 with a scale of its own."""
    scale = rows.abs().amax(-1, keepdim=True) / E4M3_LARGEST
    return fp8_rows(rows, torch.where(scale > 0, scale, torch.ones_like(scale)))


def fp8_rows(rows: Tensor, scale: Tensor | float) -> Tensor:
    """``rows`` in E4M3 with the given ``scale``; what is beyond 448 of them becomes that."""
    return nearest(rows / scale, "fp8").to(rows.dtype) * scale


def _blocks(rows: Tensor, size: int, scale_of: Callable[[Tensor], Tensor]) -> Tensor:
    grouped = rows.view(*rows.shape[:-1], -1, size)
    scale = scale_of(grouped.abs().amax(-1, keepdim=True)).to(torch.float32)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (nearest(2 * (grouped / scale), "mxfp4") * (scale / 2)).flatten(-2).to(rows.dtype)


def _nvfp4_scale(absmax: Tensor, unit: float) -> Tensor:
    return block_scales((absmax / E2M1_LARGEST).to(torch.float32), unit)
