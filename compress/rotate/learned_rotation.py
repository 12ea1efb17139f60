"""Rotations learned for a rounding: those under which the rounded products lose least.

Liu et al. 2024, "SpinQuant: LLM Quantization with Learned Rotations", arXiv 2405.16406: random rotations
differ much in what they leave of a model, so they are learned on the Cayley manifold. SpinQuant's loss is
that of the whole network; here it is the squared error of the rounded products that read rotated inputs, each
beside the power of its output, so that nothing is held but samples of rows. A rounding error grows with the
peak of those values that share a scale, and gradients see it only through that peak.
Every second row is held out, and the rotation that does best there is kept: at worst the one that it began
with.

Each step is the Cayley transform of a skew direction (Li, Li and Todorovic 2020, "Efficient Riemannian
Optimization on the Stiefel Manifold via the Cayley Transform", arXiv 2002.01113), for square matrices, where
the transform is solved exactly: with ``A`` skew, ``(I − A/2)⁻¹ (I + A/2)`` is orthogonal, so that no step
ever leaves the manifold. The gradient ``G`` at ``R`` gives the skew direction ``R Gᵀ − G Rᵀ``, along which
the loss falls fastest. A rate is an angle: the root mean square of the entries of ``A`` over a row, so that
it means the same whatever the loss and the size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numbers.fake_quant import input_scale_of, rounding_of
from ..numbers.grid import quantize
from ..numbers.scheme import Scheme

_EVERY = 10  # steps between two looks at the rows that are held out
_AT_ONCE = 20  # readers that a step goes by, evenly over the model
_LEAST_POWER = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Reader:
    """Layers that read the same rotated inputs, by samples: ``rows [tokens, in]`` and ``weight [out, in]``.

    ``in`` is ``count · repeats · size`` for rotations ``[count, size, size]``: one for the hidden states, one
    for each value head, which ``repeats`` query heads share.
    """

    rows: Tensor
    weight: Tensor

    def part(self, first: int) -> Reader:
        """Every second row, from ``first``."""
        return Reader(self.rows[first::2], self.weight)


@dataclass(frozen=True)
class LearnedRotation:
    """``rotation``, and the mean relative error on held-out rows of the first one and of this one."""

    rotation: Tensor
    first: float
    best: float


def rotated_values(values: Tensor, rotation: Tensor) -> Tensor:
    """``values [rows, in]``: each head, or all of ``in``, multiplied by its ``rotation [count, n, n]``."""
    count, size, _ = rotation.shape
    grouped = values.view(len(values), count, -1, size)
    return torch.einsum("akrn,knm->akrm", grouped, rotation).reshape(values.shape)


def rounding_loss(reader: Reader, rotation: Tensor, scheme: Scheme) -> Tensor:
    """The squared error of the product of rotated and rounded inputs and weights over its power; scalar."""
    rows, weight = rotated_values(reader.rows, rotation), rotated_values(reader.weight, rotation)
    with torch.no_grad():
        rounded_weight = quantize(weight, scheme, "minmax").dequantize()
        wanted = reader.rows @ reader.weight.T
    found = _with_error(weight, rounded_weight, scheme.group_size or weight.shape[1])
    if scheme.activations is not None:
        rows = _with_error(rows, _rounded_rows(rows.detach(), scheme), _width(rows, scheme))
    error = (rows @ found.T - wanted).square().sum()
    return error / wanted.square().sum().clamp_min(_LEAST_POWER)


def _rounded_rows(rows: Tensor, scheme: Scheme) -> Tensor:
    return rounding_of(scheme, input_scale_of(scheme, rows.abs().amax(0)))(rows)


def _width(rows: Tensor, scheme: Scheme) -> int:
    """How many neighbouring values of ``rows [tokens, in]`` share a scale."""
    if scheme.activations == "tensor":
        return rows.numel()
    return (scheme.group_size if scheme.activations == "group" else None) or rows.shape[1]


def _with_error(values: Tensor, rounded: Tensor, width: int) -> Tensor:
    """``rounded``, as ``values`` and an error in proportion to the peak of each ``width`` of them: what
    gradients see of a rounding to so many steps below the peak.
    """
    groups = values.view(-1, width)
    peaks = groups.abs().amax(-1, keepdim=True)
    error = (rounded - values).detach().view(-1, width)
    return (groups + peaks / peaks.detach().clamp_min(_LEAST_POWER) * error).view(values.shape)


def learn(
    readers: Sequence[Reader],
    start: Tensor,
    scheme: Scheme,
    steps: int,
    angle: float,
    fixed: Tensor | None = None,
) -> LearnedRotation:
    """The rotation ``[count, n, n]`` float64 for ``readers`` that ``steps`` of descent from ``start`` find.

    Args:
        angle: of the first step, in radians; it falls linearly to zero.
        fixed: a unit vector that stays where it is, or None.
    """
    learned_from = [reader.part(0) for reader in readers]
    held_out = [reader.part(1) for reader in readers]
    turns = -(-len(readers) // _AT_ONCE)
    descent = CayleyDescent(start, fixed=fixed)
    first = _mean_loss(held_out, start, scheme)
    best, kept = first, start
    for step in range(steps):
        some = learned_from[step % turns :: turns]
        descent.step(_gradient(some, descent.rotation, scheme), angle * (1 - step / steps))
        if (step + 1) % _EVERY == 0 or step + 1 == steps:
            loss = _mean_loss(held_out, descent.rotation, scheme)
            if loss < best:
                best, kept = loss, descent.rotation
    return LearnedRotation(kept, first, best)


def _mean_loss(readers: Sequence[Reader], rotation: Tensor, scheme: Scheme) -> float:
    with torch.no_grad():
        now = rotation.to(readers[0].rows)
        return sum(float(rounding_loss(reader, now, scheme)) for reader in readers) / len(readers)


def _gradient(readers: Sequence[Reader], rotation: Tensor, scheme: Scheme) -> Tensor:
    """The gradient of the mean loss, a reader at a time."""
    now = rotation.to(readers[0].rows).requires_grad_(True)
    for reader in readers:
        (rounding_loss(reader, now, scheme) / len(readers)).backward()  # type: ignore[no-untyped-call]
    assert now.grad is not None
    return now.grad


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
