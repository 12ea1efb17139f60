"""``LsqLinear``: a linear whose codes learn through a float weight behind them, and whose scales learn too.

Learned step size quantization: Esser et al. 2019, arXiv 1902.08153. With the float weight ``w``, the scale
``s`` and the zero point ``z`` the linear computes with ``ŵ = (clamp(round(w/s) + z) − z) · s``, and its
gradients are, with those of the rounding passed straight through,

- ``∂ŵ/∂w = 1`` where nothing was clamped, else 0;
- ``∂ŵ/∂s = ŵ/s − w/s`` where nothing was clamped, else ``ŵ/s``; summed over a group and times
  ``1 / sqrt(N · q)`` with ``N`` weights in the group and ``q`` the largest code, so that a scale does not
  outrun the weights below it.

With ``codes`` the linear keeps to fewer of them than its scheme has: −1, 0 and 1.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...numbers.grid import storable
from ...numbers.qtensor import QTensor

_SMALLEST = 1 / 16  # of the size that a scale began with


def on_its_side(scale: Tensor, start: Tensor) -> Tensor:
    """``scale`` as it is stored: of the sign of ``start``, no smaller than a share of it."""
    side = start.sign()
    return storable(side * torch.maximum(side * scale, start.abs() * _SMALLEST))


Codes = tuple[int, int]  # the smallest and the largest

# How far from the middle of its rounding cell a weight may begin, in steps: at 0.5 it would belong to two.
_MARGIN = 0.45


class _Rounded(torch.autograd.Function):
    """From ``latent [out, groups, size]``, ``scale`` and ``zero_point [out, groups, 1]`` to the weight that
    the codes stand for; where ``mask`` is False it is zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latent: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        mask: Tensor | None,
        codes: Codes,
    ) -> Tensor:
        ctx.save_for_backward(latent, scale, zero_point, mask)
        ctx.codes = codes
        return _steps(latent, scale, zero_point, mask, codes).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        latent, scale, zero_point, mask = ctx.saved_tensors
        lowest, highest = ctx.codes
        exact = latent / scale
        codes = exact.round() if zero_point is None else exact.round() + zero_point
        inside = (codes >= lowest) & (codes <= highest)
        if mask is not None:
            gradient = torch.where(mask, gradient, 0.0)
        steps = _steps(latent, scale, zero_point, mask, ctx.codes)
        slope = torch.where(inside, steps - exact, steps).mul_(gradient).sum(-1, keepdim=True)
        return torch.where(inside, gradient, 0.0), slope * _share(latent, ctx.codes), None, None, None


def _share(latent: Tensor, codes: Codes) -> float:
    """LSQ's gradient scale for the step size of a group."""
    return float((latent.shape[-1] * max(1, codes[1])) ** -0.5)


def _steps(
    latent: Tensor, scale: Tensor, zero_point: Tensor | None, mask: Tensor | None, codes: Codes
) -> Tensor:
    """``codes − zero_point``, as floats."""
    steps = (latent / scale).round_()
    if zero_point is None:
        steps.clamp_(*codes)
    else:
        steps = steps.add_(zero_point).clamp_(*codes).sub_(zero_point)
    return steps if mask is None else steps.mul_(mask)


def latent_of(tensor: QTensor, weight: Tensor | None = None) -> Tensor:
    """A float weight ``[out, groups, size]`` whose codes are those of ``tensor``: the middles of their
    rounding cells, or the points of the cells that are nearest to ``weight [out, in]``.
    """
    middle = tensor.codes.to(torch.float32).view(*tensor.scale.shape, -1)
    if tensor.zero_point is not None:
        middle = middle - tensor.zero_point.to(torch.float32).unsqueeze(-1)
    scale = tensor.scale.to(torch.float32).unsqueeze(-1)
    if weight is not None:
        wanted = weight.to(torch.float32).view(middle.shape) / scale
        middle = torch.minimum(torch.maximum(wanted, middle - _MARGIN), middle + _MARGIN)
    return middle * scale


class LsqLinear(nn.Module):
    """``x [..., in]`` to ``[..., out]`` through a quantized weight whose codes and scales learn.

    Attributes:
        latent: ``[out, groups, size]`` float32, the weight behind the codes.
        scale: ``[out, groups]``; zero_point: the same or None; mask: ``[out, groups, size]`` or None.
        bias: ``[out]`` or None.
    """

    zero_point: Tensor | None
    mask: Tensor | None

    def __init__(
        self,
        tensor: QTensor,
        bias: Tensor | None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        codes: Codes | None = None,
    ) -> None:
        super().__init__()
        self.scheme = tensor.scheme
        self.codes = tensor.scheme.code_range if codes is None else codes
        latent = latent_of(tensor, weight)
        self.latent = nn.Parameter(latent, requires_grad=False)
        self.scale = nn.Parameter(tensor.scale.to(torch.float32), requires_grad=False)
        zero_point = tensor.zero_point
        self.register_buffer("zero_point", None if zero_point is None else zero_point.to(torch.float32))
        self.register_buffer("mask", None if mask is None else mask.view(latent.shape))
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The weight ``[out, in]`` that the codes stand for, to the bit as :meth:`tensor` dequantizes."""
        zero_point = None if self.zero_point is None else self.zero_point.unsqueeze(-1)
        grouped: Tensor = _Rounded.apply(
            self.latent, self.scale.unsqueeze(-1), zero_point, self.mask, self.codes
        )
        return grouped.flatten(1)

    def tensor(self) -> QTensor:
        """The weight as it is now."""
        with torch.no_grad():
            zero_point = None if self.zero_point is None else self.zero_point.unsqueeze(-1)
            codes = _steps(self.latent, self.scale.unsqueeze(-1), zero_point, self.mask, self.codes)
            if zero_point is not None:
                codes = codes + zero_point
        kept = None if self.zero_point is None else self.zero_point.to(torch.int8)
        return QTensor(self.scheme, codes.flatten(1).to(torch.int8), self.scale.detach(), kept)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)
