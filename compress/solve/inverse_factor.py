"""The Cholesky factor of the inverse of a damped Gram, as GPTQ's recursion needs it, in little memory.

``H⁻¹ = Uᵀ U`` with U upper triangular. With P the reversal of channels, ``P H P = L Lᵀ`` gives ``U = P L⁻¹
P``. The factorization and the triangular inverse are done in place, and U is read off the inverse by panels
of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_DAMPING = 10.0
_PANEL = 256


@dataclass(frozen=True)
class Factor:
    """``lower``: L⁻¹ ``[in, in]`` of the reversed Gram; ``damping``: share of the mean diagonal that had to
    be added.
    """

    lower: Tensor
    damping: float

    @property
    def upper(self) -> Tensor:
        """U with H⁻¹ = Uᵀ U ``[in, in]``."""
        return self.lower.flip(0, 1)

    def panel(self, start: int, stop: int) -> Tensor:
        """``upper[start:stop, start:]``, the part of these rows that is not zero."""
        size = len(self.lower)
        return self.lower[size - stop : size - start, : size - start].flip(0, 1)


def factorize(gram: Tensor, damping: float, order: Tensor | None = None) -> Factor | None:
    """The factor of ``gram [in, in]`` with its channels taken in ``order [in]``, or None when no damping up
    to 10 suffices.

    The damping is a share of the mean diagonal, made ten times stronger until the matrix factors; channels
    that never fired get the mean itself. Holds one matrix of the size of ``gram`` beside it.
    """
    mean = float(gram.diagonal().mean())
    if not (mean > 0 and all_finite(gram)):
        return None
    # linalg on MPS lacks Cholesky; the factor is small, so the host does it there.
    work = gram.cpu() if gram.device.type == "mps" else gram
    reverse = torch.arange(len(gram)).flip(0) if order is None else order.flip(0)
    reverse = reverse.to(work.device)
    dead = work.diagonal()[reverse] <= 0
    while damping <= MAX_DAMPING:
        matrix = permuted(work, reverse)
        matrix.diagonal().add_(damping * mean)
        matrix.diagonal()[dead] = mean
        lower = cholesky_in_place(matrix)
        if lower is not None:
            invert_lower_in_place(lower)
            if all_finite(lower.mT) and bool((lower.diagonal() > 0).all()):
                return Factor(lower.to(gram.device), damping)
        damping *= 10
    return None


def damped(gram: Tensor, damping: float) -> Tensor:
    """The matrix that :func:`factorize` factors at ``damping``, in the channels' own order ``[in, in]``."""
    mean = gram.diagonal().mean()
    result = gram.clone()
    result.diagonal().add_(damping * mean)
    result.diagonal()[gram.diagonal() <= 0] = mean
    return result


def all_finite(matrix: Tensor) -> bool:
    """Whether all of a contiguous matrix is finite, without a copy; NaN propagates through the extremes."""
    return all(math.isfinite(value) for value in map(float, torch.aminmax(matrix)))


def permuted(matrix: Tensor, order: Tensor) -> Tensor:
    """``matrix[order][:, order]`` without a second copy of the matrix."""
    result = torch.empty_like(matrix)
    for start in range(0, len(order), _PANEL):
        rows = slice(start, start + _PANEL)
        torch.index_select(matrix[order[rows]], 1, order, out=result[rows])
    return result


def cholesky_in_place(matrix: Tensor) -> Tensor | None:
    """L with ``matrix = L Lᵀ``, in the memory of ``matrix``; None when it is not positive definite."""
    columns = matrix.mT  # LAPACK's layout; the matrix is symmetric
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(columns, out=(columns, info))
    return columns if int(info) == 0 else None


def invert_lower_in_place(lower: Tensor) -> None:
    """Replace a lower triangular matrix by its inverse, by panels of columns from the right.

    With L = [[A, 0], [B, C]]: L⁻¹ = [[A⁻¹, 0], [−C⁻¹ B A⁻¹, C⁻¹]].
    """
    size = len(lower)
    for start in range((size - 1) // _PANEL * _PANEL, -1, -_PANEL):
        stop = min(start + _PANEL, size)
        corner = lower[start:stop, start:stop]
        identity = torch.eye(stop - start, dtype=lower.dtype, device=lower.device)
        corner.copy_(torch.linalg.solve_triangular(corner, identity, upper=False))
        if stop < size:
            below = lower[stop:, start:stop]
            below.copy_(lower[stop:, stop:] @ (below @ corner)).neg_()
