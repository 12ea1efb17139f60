"""Simulated activation quantization: what an integer kernel computes, in float; the reference for parity.

The rule is compressed-tensors' for dynamic symmetric int8 per token: 256 levels, ``scale = absmax / 127.5``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .straight_through import straight_through

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
    owner_name, _, leaf = name.rpartition(".")
    owner = root.get_submodule(owner_name)
    linear = getattr(owner, leaf)
    if not isinstance(linear, TokenQuantLinear):
        setattr(owner, leaf, TokenQuantLinear(linear, rounding))


def unwrap(root: nn.Module, name: str) -> None:
    """Undo :func:`wrap`; the weight may have been replaced meanwhile."""
    owner_name, _, leaf = name.rpartition(".")
    owner = root.get_submodule(owner_name)
    wrapped = getattr(owner, leaf)
    if isinstance(wrapped, TokenQuantLinear):
        setattr(owner, leaf, wrapped.linear)
