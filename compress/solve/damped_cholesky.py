"""Damped normal equations: every Cholesky factor of a Gram in the package, and what is solved with it.

A Gram ``H`` of calibration inputs is often singular: it gets a fraction of its mean diagonal added (the
damping) until it factors. Most fits want ``L`` with ``H = L Lᵀ``. GPTQ's recursion wants ``U`` upper
triangular with ``H⁻¹ = Uᵀ U``: with P the reversal of channels, ``P H P = L Lᵀ`` gives ``U = P L⁻¹ P``. There
the factorization and the triangular inverse are done in place, and U is read off the inverse by panels of
rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from .paced import paced

MAX_DAMPING = 10.0
# Tried one after another where none is given, by halves of the text.
DAMPINGS = (0.01, 0.1, 1.0, 10.0)
_PANEL = 256
_ROWS = 512  # of a triangle that are multiplied at once: what is zero beside them is left out
_FACTORED = 0.25  # of the work on a Gram, the rest is the inverse of the factor


def all_finite(matrix: Tensor) -> bool:
    """Whether all of a contiguous matrix is finite, without a copy; NaN propagates through the extremes."""
    return all(math.isfinite(value) for value in map(float, torch.aminmax(matrix)))


def damp(matrix: Tensor, damping: float, mean: float | Tensor | None = None) -> Tensor:
    """``matrix [n, n]`` with ``damping`` times ``mean`` added to its diagonal, in place.

    ``mean`` is that of the diagonal, which a tensor keeps on the device; a float, where the host has read it
    already, is multiplied in float64, so that the two differ in the last bit.
    """
    matrix.diagonal().add_(damping * (matrix.diagonal().mean() if mean is None else mean))
    return matrix


def damped(gram: Tensor, damping: float) -> Tensor:
    """A damped copy of ``gram [in, in]`` where channels that never fired have the mean of the diagonal."""
    mean = gram.diagonal().mean()
    result = damp(gram.clone(), damping, mean)
    result.diagonal()[gram.diagonal() <= 0] = mean
    return result


def cholesky(matrix: Tensor) -> Tensor | None:
    """L ``[n, n]`` with ``matrix = L Lᵀ``; None when it is not positive definite, or L not finite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) or not bool(torch.isfinite(factor).all()) else factor


def damp_until_factored(square: Callable[[], Tensor], damping: float) -> tuple[Tensor | None, float]:
    """L of what ``square`` gives, ``[n, n]``, damped ten times stronger until it factors, and the damping
    that this took; no L where none up to 10 suffices. Each of them is overwritten: one is held at a time.
    """
    while damping <= MAX_DAMPING:
        matrix = square()
        mean = float(matrix.diagonal().mean())
        if not mean > 0:
            break
        factor = cholesky_in_place(damp(matrix, damping, mean))
        if factor is not None and all_finite(factor.mT):
            return factor, damping
        damping *= 10
    return None, damping


def inverted(gram: Tensor, damping: float) -> Tensor | None:
    """The inverse of the :func:`damped` Gram ``[in, in]``; None where it is not positive definite."""
    if not all_finite(gram) or not bool((gram.diagonal() > 0).any()):
        return None
    factor = cholesky(damped(gram, damping))
    return None if factor is None else torch.cholesky_inverse(factor)


def solve_each(matrices: Tensor, right: Tensor, damping: float) -> Tensor:
    """``x [rows, n]`` with ``A x = b`` for each A of ``matrices [rows, n, n]`` and b of ``right [rows, n]``;
    NaN where one does not factor.

    Here the damping is a fraction of each entry of the diagonal, since the unknowns differ in size, and 1
    where that is zero: what does not count stays where it is.
    """
    diagonal = matrices.diagonal(dim1=1, dim2=2)
    ridge = torch.where(diagonal > 0, damping * diagonal, torch.ones_like(diagonal))
    device = matrices.device
    work = matrices + torch.diag_embed(ridge)
    if device.type == "mps":  # linalg on MPS lacks Cholesky
        work, right = work.cpu(), right.cpu()
    factor, info = torch.linalg.cholesky_ex(work)
    found = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
    found[info != 0] = torch.nan
    return found.to(device)


def damping_status(wanted: float, used: float | None, fallback: str) -> tuple[str, str]:
    """Status and detail of a layer that was solved with the damping ``used``, or not at all."""
    if used is None:
        return fallback, f"the Gram is not positive definite even with damping {MAX_DAMPING:g}"
    return ("damped", f"damping {used:g} instead of {wanted:g}") if used > wanted else ("ok", "")


class Sums(Protocol):
    """What a fit needs to know of a text, added up over its tokens."""

    @property
    def empty(self) -> bool:
        """Whether no token counted."""

    def include(self, other: Self) -> None:
        """Add those of another text."""


S = TypeVar("S", bound=Sums)
F = TypeVar("F")


def fit_halves(
    halves: tuple[S, S],
    damping: float | None,
    fit: Callable[[S, float], F],
    error: Callable[[S, F], float],
) -> F:
    """The ``fit`` to both halves of the text; without a ``damping``, with that of :data:`DAMPINGS` which
    leaves the least ``error`` in the half it was not fitted to: a wide linear learns a short text by heart.
    The first half becomes both in the end.
    """
    if damping is None and not (halves[0].empty or halves[1].empty):
        errors = [_crossed(halves, tried, fit, error) for tried in DAMPINGS]
        damping = DAMPINGS[errors.index(min(errors))]
    both, other = halves
    both.include(other)
    return fit(both, DAMPINGS[0] if damping is None else damping)


def _crossed(
    halves: tuple[S, S], damping: float, fit: Callable[[S, float], F], error: Callable[[S, F], float]
) -> float:
    """What is left in each half of the fit to the other."""
    one, other = halves
    return error(other, fit(one, damping)) + error(one, fit(other, damping))


@dataclass(frozen=True)
class InverseFactor:
    """``lower``: L⁻¹ ``[in, in]`` of the reversed Gram; ``damping``: fraction of the mean diagonal that was
    added.
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


def factorize(
    gram: Tensor, damping: float, order: Tensor | None = None, tick: Tick = unseen
) -> InverseFactor | None:
    """The factor of ``gram [in, in]`` with its channels taken in ``order [in]``, or None when no damping up
    to 10 suffices.

    The damping is made ten times stronger until the matrix factors; channels that never fired get the mean
    itself. Holds one matrix of the size of ``gram`` beside it. ``tick`` receives the multiply-adds that are
    done.
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
        matrix = damp(permuted(work, reverse), damping, mean)
        matrix.diagonal()[dead] = mean
        with paced(tick, _FACTORED * len(gram) ** 3):
            lower = cholesky_in_place(matrix)
        if lower is not None:
            invert_lower_in_place(lower, tick=tick)
            if all_finite(lower.mT) and bool((lower.diagonal() > 0).all()):
                return InverseFactor(lower.to(gram.device), damping)
        damping *= 10
    return None


def permuted(matrix: Tensor, order: Tensor, panel: int = _PANEL) -> Tensor:
    """``matrix[order][:, order]`` without a second copy of the matrix, so many rows at a time."""
    result = torch.empty_like(matrix)
    for start in range(0, len(order), panel):
        rows = slice(start, start + panel)
        torch.index_select(matrix[order[rows]], 1, order, out=result[rows])
    return result


def cholesky_in_place(matrix: Tensor) -> Tensor | None:
    """L with ``matrix = L Lᵀ``, in the memory of ``matrix``; None when it is not positive definite."""
    columns = matrix.mT  # LAPACK's layout; the matrix is symmetric
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(columns, out=(columns, info))
    return columns if int(info) == 0 else None


def solved(factor: Tensor, right: Tensor) -> Tensor:
    """``x [n, k]`` with ``L Lᵀ x = right [n, k]`` for L, the ``factor [n, n]`` of :func:`cholesky_in_place`;
    as torch's cholesky_solve, which copies L first.
    """
    found: Tensor = torch.linalg.solve_triangular(factor, right, upper=False)
    torch.linalg.solve_triangular(factor.mT, found, upper=True, out=found)
    return found


def invert_lower_in_place(lower: Tensor, panel: int = _PANEL, tick: Tick = unseen) -> None:
    """Replace a lower triangular matrix by its inverse, by panels of columns from the right.

    With L = [[A, 0], [B, C]]: L⁻¹ = [[A⁻¹, 0], [−C⁻¹ B A⁻¹, C⁻¹]].
    """
    size = len(lower)
    for start in range((size - 1) // panel * panel, -1, -panel):
        stop = min(start + panel, size)
        corner = lower[start:stop, start:stop]
        identity = torch.eye(stop - start, dtype=lower.dtype, device=lower.device)
        corner.copy_(torch.linalg.solve_triangular(corner, identity, upper=False))
        if stop < size:
            inner, below = lower[stop:, stop:], lower[stop:, start:stop]
            right = (below @ corner).neg_()
            for top in range(0, size - stop, _ROWS):
                rows = slice(top, top + _ROWS)
                below[rows] = inner[rows, : top + _ROWS] @ right[: top + _ROWS]
        tick((1 - _FACTORED) * size**2 * (stop - start))
