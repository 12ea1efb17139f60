"""Linears of a student whose weight is made of something else in each pass: of codes, of the embedding, or of
a table in a smaller type.

``QuantLinear`` computes from codes, scales and zero points, and learns the last two.
The codes stay int8 in memory; the float weight exists for one product at a time, in the forward and again in
the backward pass. With ``weight = (codes − zero_point) · scale`` and ``G = gradientᵀ rows`` the gradients are
``∂scale = Σ_group G · (codes − zero_point)`` and ``∂zero_point = −scale · Σ_group G``. Of a trellis the
levels take the place of the codes, and the rows are rotated.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...numbers.input_rotation import rotated
from ...numbers.qtensor import QTensor
from ...numbers.scheme import Scheme
from ...numbers.trellis import levels, word_tiles

_AT_ONCE = 1 << 19  # weights that are in float32 at once


def _tiles(codes: Tensor) -> list[slice]:
    """Rows of ``codes [out, in]`` that are worked on at once."""
    rows = max(1, _AT_ONCE // codes.shape[1])
    return [slice(start, start + rows) for start in range(0, len(codes), rows)]


def _steps(codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """``[out, groups, width]`` float32: the codes less their zero points."""
    grouped = codes.view(*scale.shape, -1).to(torch.float32)
    return grouped if zero_point is None else grouped.sub_(zero_point.unsqueeze(-1))


def _weight(codes: Tensor, scale: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``[out, in]``, as ``QTensor.dequantize`` has it, in ``dtype``."""
    weight = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    for tile in _tiles(codes):
        points = None if zero_point is None else zero_point[tile]
        values = _steps(codes[tile], scale[tile], points).mul_(scale[tile].unsqueeze(-1))
        weight[tile] = values.view(-1, codes.shape[1])
    return weight


class _Product(torch.autograd.Function):
    """``rows [tokens, in]`` times the transposed weight; nothing of the weight's size is kept for the way
    back.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, codes, scale, zero_point)
        return rows @ _weight(codes, scale, zero_point, rows.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        rows, codes, scale, zero_point = ctx.saved_tensors
        for_rows = for_scale = for_zero_point = None
        if ctx.needs_input_grad[0]:
            for_rows = gradient @ _weight(codes, scale, zero_point, gradient.dtype)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            outer, for_scale = gradient.T @ rows, torch.empty_like(scale)
            for_zero_point = torch.empty_like(scale) if ctx.needs_input_grad[3] else None
            for tile in _tiles(codes):
                points = None if zero_point is None else zero_point[tile]
                steps = _steps(codes[tile], scale[tile], points)
                grouped = outer[tile].to(torch.float32).view(steps.shape)
                if for_zero_point is not None:
                    for_zero_point[tile] = -scale[tile] * grouped.sum(-1)
                for_scale[tile] = steps.mul_(grouped).sum(-1)
        return for_rows, None, for_scale, for_zero_point


def multiplied(tensor: QTensor) -> Tensor:
    """``[out, in]`` int8: what scales are multiplied by, the codes or the levels of a trellis' symbols."""
    if not tensor.scheme.of_trellis:
        return tensor.codes
    tiles = [levels(tensor.codes[tile], tensor.scheme.bits) for tile in word_tiles(tensor.codes)]
    return torch.cat(tiles).to(torch.int8)


class QuantLinear(nn.Module):
    """``x [..., in]`` to ``[..., out]`` through a quantized weight.

    Attributes:
        codes: ``[out, in]`` int8, as :func:`multiplied` gives them.
        scale, zero_point: ``[out, groups]`` float32; the latter may be None.
        bias: ``[out]`` or None.
    """

    codes: Tensor

    def __init__(self, tensor: QTensor, bias: Tensor | None) -> None:
        super().__init__()
        self.scheme: Scheme = tensor.scheme
        self.register_buffer("codes", multiplied(tensor).contiguous())
        self.scale = nn.Parameter(tensor.scale.to(torch.float32), requires_grad=False)
        zero_point = tensor.zero_point
        self.zero_point = (
            None if zero_point is None else nn.Parameter(zero_point.to(torch.float32), requires_grad=False)
        )
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def tensor(self, symbols: Tensor | None = None) -> QTensor:
        """The weight as it is now; of a trellis with the ``symbols [out, in]`` that it was made of."""
        zero_point = None if self.zero_point is None else self.zero_point.detach().to(torch.int8)
        codes = self.codes if symbols is None else symbols
        return QTensor(self.scheme, codes, self.scale.detach(), zero_point)

    @property
    def weight(self) -> Tensor:
        """The codes: T5 looks at the type of a weight, and leaves inputs of int8 ones as they are."""
        return self.codes

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x.reshape(-1, x.shape[-1])
        rows = rotated(rows) if self.scheme.of_trellis else rows
        out = _Product.apply(rows, self.codes, self.scale, self.zero_point)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


_HEAD_ROWS = 8192  # of a stored head that are in float32 at once


class _TableProduct(torch.autograd.Function):
    """``rows [tokens, in]`` times the transposed ``table [out, in]``, which does not learn."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor) -> Tensor:
        ctx.parts = torch.split(table, len(table) if table.dtype == rows.dtype else _HEAD_ROWS)
        found = [rows @ part.to(rows.dtype).T for part in ctx.parts]
        return torch.cat(found, -1) if len(found) > 1 else found[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        pieces = torch.split(gradient, [len(part) for part in ctx.parts], -1)
        pairs = zip(pieces, ctx.parts, strict=True)
        first, *others = (piece @ part.to(piece.dtype) for piece, part in pairs)
        return sum(others, start=first), None


class StoredHead(nn.Module):
    """States ``[..., hidden]`` to logits ``[..., vocab]`` by a ``table [vocab, hidden]`` that stays in its
    stored type.
    """

    table: Tensor

    def __init__(self, table: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        out: Tensor = _TableProduct.apply(rows, self.table)
        out = out if self.bias is None else out + self.bias.to(out.dtype)
        return out.view(*states.shape[:-1], -1)


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
