"""Descent on the orthogonal matrices: the Cayley transform of a skew direction takes each step.

Li, Li and Todorovic 2020, "Efficient Riemannian Optimization on the Stiefel Manifold via the Cayley
Transform", arXiv 2002.01113, for square matrices, where the transform is solved exactly: with ``A`` skew,
``(I − A/2)⁻¹ (I + A/2)`` is orthogonal, so that no step ever leaves the manifold. The gradient ``G`` at ``R``
gives the skew direction ``R Gᵀ − G Rᵀ``, along which the loss falls fastest. A rate is an angle: the root
mean square of the entries of ``A`` over a row, so that it means the same whatever the loss and the size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def skew_direction(rotation: Tensor, gradient: Tensor) -> Tensor:
    """The skew ``[…, n, n]`` along which the loss falls fastest from ``rotation``, both ``[…, n, n]``."""
    product = rotation @ gradient.mT
    return product - product.mT


def without(direction: Tensor, vector: Tensor) -> Tensor:
    """``direction [..., n, n]``, skew, less what would move the unit ``vector [n]``: what rotates by it keeps
    the vector where it is.
    """
    along = (direction @ vector).unsqueeze(-1) * vector
    return direction - along + along.mT


def cayley(direction: Tensor) -> Tensor:
    """The orthogonal ``(I − A/2)⁻¹ (I + A/2)`` for ``direction`` ``A [..., n, n]``, skew."""
    one = torch.eye(direction.shape[-1], dtype=direction.dtype, device=direction.device)
    found: Tensor = torch.linalg.solve(one - direction / 2, one + direction / 2)
    return found


class CayleyDescent:
    """Orthogonal ``rotation [..., n, n]`` float64, moved against gradients with momentum.

    Args:
        fixed: a unit vector ``[n]`` that no step may move; None leaves all free.
    """

    def __init__(self, rotation: Tensor, momentum: float = 0.9, fixed: Tensor | None = None) -> None:
        self.rotation, self.momentum, self.fixed = rotation, momentum, fixed
        self.direction = torch.zeros_like(rotation)

    def step(self, gradient: Tensor, angle: float) -> None:
        """Move by ``angle``, against ``gradient`` of the shape of the rotation."""
        found = skew_direction(self.rotation, gradient.to(self.rotation))
        if self.fixed is not None:
            found = without(found, self.fixed.to(found))
        self.direction = self.momentum * self.direction + found / _size(found)
        size = _size(self.direction)
        self.rotation = cayley(angle / size * self.direction) @ self.rotation


def _size(direction: Tensor) -> Tensor:
    """``[..., 1, 1]``: the root mean square over the rows of their norms; 1 for a direction of zeros."""
    size = direction.square().sum(-1, keepdim=True).mean(-2, keepdim=True).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))
