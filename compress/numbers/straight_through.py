"""The straight-through estimator: forward the rounded value, backward as if nothing had been rounded.

Bengio, Léonard, Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons", arXiv
1308.3432. The value that leaves is exactly the rounded one, so that a model in training computes what the
stored model will.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


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
