"""Least squares for what reads a narrower residual stream: a map from the states a norm gives now to those it
gave, which its linears take in, or the norm's scales alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...solve.damped_cholesky import cholesky, damp, fit_halves


class Reading:
    """Sums over tokens of what a norm gave, ``t [hidden]``, and gives now, ``n [kept]``.

    ``start [hidden, kept]`` is the map that the damping holds the fit to.
    """

    def __init__(self, start: Tensor) -> None:
        self.start = start.to(torch.float32)
        kept = start.shape[1]
        self.gram = torch.zeros(kept, kept, device=start.device)
        self.cross = torch.zeros_like(self.start)
        self.power = 0.0

    def add(self, given: Tensor, now: Tensor) -> None:
        """Rows ``given [tokens, hidden]`` of the original and ``now [tokens, kept]``."""
        self.gram.addmm_(now.T, now)
        self.cross.addmm_(given.T, now)
        self.power += float(given.square().sum())

    def __add__(self, other: Reading) -> Reading:
        """The sums over the tokens of both."""
        both = Reading(self.start)
        both.gram, both.cross = self.gram + other.gram, self.cross + other.cross
        both.power = self.power + other.power
        return both

    def fit(self, damping: float) -> Tensor | None:
        """The map ``[hidden, kept]`` of least ``E‖t − R n‖²``; None where the Gram does not factor."""
        factor = cholesky(damp(self.gram.clone(), damping))
        if factor is None:
            return None
        return self.start + torch.cholesky_solve((self.cross - self.start @ self.gram).T, factor).T

    @property
    def empty(self) -> bool:
        """Whether there is nothing to fit."""
        return not self.power

    def error(self, found: Tensor | None) -> float:
        """What the map ``found`` leaves of ``t``, squared and relative; without bound where there is none."""
        if found is None:
            return float("inf")
        left = self.power - 2 * float((self.cross * found).sum()) + float(((found @ self.gram) * found).sum())
        return max(left, 0.0) / self.power if self.power > 0 else 0.0


def fit_reading(halves: tuple[Reading, Reading], damping: float | None) -> Tensor | None:
    """The map fitted to both halves of the text, as :func:`fit_halves` says; None where a Gram does not
    factor.
    """
    return fit_halves(halves, damping, Reading.fit, Reading.error)


def fitted_scales(
    reading: Reading, start: Tensor, table_gram: Tensor, basis: Tensor, damping: float
) -> Tensor | None:
    """The final norm's scales ``w [kept]`` of least squared error of the logits ``E B (w ∘ n)``, where
    ``E [vocab, hidden]`` is the embedding and ``B [hidden, kept]`` the basis; ``start`` are those that the
    damping holds them to. None where the equations do not factor.

    ``table_gram`` is ``EᵀE`` with the mean row of ``E`` taken off, since a shift of all logits changes
    nothing. The normal equations are ``(Bᵀ EᵀE B ∘ E[n nᵀ]) w = diag(Bᵀ EᵀE E[t nᵀ])``.
    """
    reads = basis.T @ table_gram.to(basis.dtype)
    square = (reads @ basis) * reading.gram
    target = (reads * reading.cross.T).sum(1)
    scales = start.to(basis.dtype)
    factor = cholesky(damp(square.clone(), damping))
    if factor is None:
        return None
    change = torch.cholesky_solve((target - square @ scales).unsqueeze(1), factor).squeeze(1)
    return (scales + change).to(torch.float32)
