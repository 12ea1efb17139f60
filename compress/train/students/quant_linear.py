"""Linears of a student whose weight is made of something else in each pass: of codes, or of the embedding.

``QuantLinear`` computes from codes, scales and zero points, and learns the last two.
The codes stay int8 in memory; the float weight exists for one product at a time, in the forward and again in
the backward pass. With ``weight = (codes − zero_point) · scale`` and ``G = gradientᵀ rows`` the gradients are
``∂scale = Σ_group G · (codes − zero_point)`` and ``∂zero_point = −scale · Σ_group G``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme


def _weight(codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """``[out, in]`` float32, as ``QTensor.dequantize`` has it."""
    grouped = codes.view(*scale.shape, -1).to(torch.float32)
    if zero_point is not None:
        grouped -= zero_point.unsqueeze(-1)
    return grouped.mul_(scale.unsqueeze(-1)).view(codes.shape)


class _Product(torch.autograd.Function):
    """``rows [tokens, in]`` times the transposed weight; nothing of the weight's size is kept for the way
    back.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, codes, scale, zero_point)
        return rows @ _weight(codes, scale, zero_point).to(rows.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        rows, codes, scale, zero_point = ctx.saved_tensors
        for_rows = for_scale = for_zero_point = None
        if ctx.needs_input_grad[0]:
            for_rows = gradient @ _weight(codes, scale, zero_point).to(gradient.dtype)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            outer = (gradient.T @ rows).to(torch.float32).view(*scale.shape, -1)
            if ctx.needs_input_grad[3]:
                for_zero_point = -scale * outer.sum(-1)
            steps = codes.view(outer.shape).to(torch.float32)
            if zero_point is not None:
                steps -= zero_point.unsqueeze(-1)
            for_scale = outer.mul_(steps).sum(-1)
        return for_rows, None, for_scale, for_zero_point


class QuantLinear(nn.Module):
    """``x [..., in]`` to ``[..., out]`` through a quantized weight.

    Attributes:
        codes: ``[out, in]`` int8. scale, zero_point: ``[out, groups]`` float32; the latter may be None.
        bias: ``[out]`` or None.
    """

    codes: Tensor

    def __init__(self, tensor: QTensor, bias: Tensor | None) -> None:
        super().__init__()
        self.scheme: Scheme = tensor.scheme
        self.register_buffer("codes", tensor.codes.contiguous())
        self.scale = nn.Parameter(tensor.scale.to(torch.float32), requires_grad=False)
        zero_point = tensor.zero_point
        self.zero_point = (
            None if zero_point is None else nn.Parameter(zero_point.to(torch.float32), requires_grad=False)
        )
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def tensor(self) -> QTensor:
        """The weight as it is now."""
        zero_point = None if self.zero_point is None else self.zero_point.detach().to(torch.int8)
        return QTensor(self.scheme, self.codes, self.scale.detach(), zero_point)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x.reshape(-1, x.shape[-1])
        out = _Product.apply(rows, self.codes, self.scale, self.zero_point)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


class TiedHead(nn.Module):
    """States ``[..., hidden]`` to logits ``[..., vocab]`` by the weight of ``embedding [vocab, hidden]``, as
    it is at the moment.
    """

    def __init__(self, embedding: nn.Module, bias: Tensor | None = None) -> None:
        super().__init__()
        self._embedding = (embedding,)  # in a tuple: the module has its place in the model already
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """``[vocab, hidden]``."""
        return self._embedding[0].weight  # type: ignore[return-value]

    def forward(self, states: Tensor) -> Tensor:
        return nn.functional.linear(states, self.weight, self.bias)
