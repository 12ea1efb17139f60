"""Which weights are kept: those with the highest scores of a layer, of each row, or of each N:M group.

N:M keeps N of every M consecutive inputs of an output channel: 2:4 is what NVIDIA's sparse tensor cores read.
Ties fall to position, so that equal scores give the same mask everywhere, and what is pruned already counts
towards the share.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ...errors import ShapeError

Scope = Literal["layer", "row"]


class Pattern(NamedTuple):
    """``kept`` of every ``size`` consecutive inputs stay."""

    kept: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """``2:4`` and the like.

        Raises:
            ValueError: not of the form N:M with 0 < N < M.
        """
        kept, _, size = text.partition(":")
        if not (kept.isdecimal() and size.isdecimal() and 0 < int(kept) < int(size)):
            raise ValueError(f"{text!r} is not N:M with 0 < N < M, such as 2:4")
        return cls(int(kept), int(size))

    @property
    def sparsity(self) -> float:
        """The share of weights that become zero."""
        return 1 - self.kept / self.size


def keep_highest(score: Tensor, sparsity: float, scope: Scope, earlier: Tensor | None = None) -> Tensor:
    """Bool mask ``[out, in]``, True keeps: the ``round(sparsity · n)`` lowest of ``score [out, in]`` are
    False, n being the entries of the layer or of each row.

    ``earlier`` is a mask whose pruned entries go first; they stay pruned even where they are more than that.
    """
    rows = score if scope == "row" else score.reshape(1, -1)
    mask = _keep(
        rows if earlier is None else _last(score, earlier).view_as(rows), round(sparsity * rows.shape[1])
    )
    mask = mask.view_as(score)
    return mask if earlier is None else mask & earlier


def keep_pattern(score: Tensor, pattern: Pattern, earlier: Tensor | None = None) -> Tensor:
    """Bool mask ``[out, in]``, True keeps the ``pattern.kept`` highest of each group of ``score [out, in]``.

    Raises:
        ShapeError: the groups do not divide the inputs.
    """
    if score.shape[1] % pattern.size:
        raise ShapeError(f"groups of {pattern.size} do not divide {score.shape[1]} inputs")
    rows = (score if earlier is None else _last(score, earlier)).reshape(-1, pattern.size)
    mask = _keep(rows, pattern.size - pattern.kept).view_as(score)
    return mask if earlier is None else mask & earlier


def _last(score: Tensor, earlier: Tensor) -> Tensor:
    """``score`` with what is pruned already behind all the rest."""
    return score.masked_fill(~earlier, -torch.inf)


def _keep(rows: Tensor, drop: int) -> Tensor:
    """The mask that drops the ``drop`` lowest of each row, of equal ones the first."""
    if drop == 0:
        return torch.ones_like(rows, dtype=torch.bool)
    highest = rows.kthvalue(drop, dim=1, keepdim=True).values
    lower, equal = rows < highest, rows == highest
    room = drop - lower.sum(1, keepdim=True)
    return ~(lower | (equal & (equal.cumsum(1) <= room)))
