"""ALPS: which weights stay is found together with what they become, by splitting the two (ADMM).

Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models",
arXiv 2406.07831. The layer's output error is lessened over a dense weight ``B`` and a sparse one ``D`` that
are pulled together ever harder (ρ grows): ``B`` solves ``(H + ρI) B = H W − V + ρD``, ``D`` keeps the largest
entries of ``B + V/ρ``, and ``V`` gathers what still parts them. Channels are scaled to a unit diagonal of
``H`` first. What is left at the end is fitted by least squares.

Of the pruning passes the slowest and the closest: two matrix products a round.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...terminal.progress import Tick
from ..model.block_anatomy import Linear
from ..pipeline.advance import Work
from ..pipeline.algorithm import Fixed
from ..prune.gram_pruning import FIT_STEPS, GramPruning, StackedRows
from ..solve.damped_cholesky import InverseFactor
from ..solve.paced import paced

_EIGENVECTORS = 4  # what they take of a square, in Cholesky factors with the inverse
_PULL, _GROWTH = 0.1, 1.3  # the first ρ, where H has a unit diagonal, and the factor on it after each round


class Alps(GramPruning):
    """Options of ``alps``."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        **GramPruning.fixed,
        "pull": Fixed(_PULL, "channels are scaled to a unit diagonal, so that one first ρ fits all layers"),
        "growth": Fixed(_GROWTH, "twenty rounds take ρ from 0.1 to about 19, where both weights agree"),
        "fit_steps": Fixed(FIT_STEPS, "the splitting leaves a weight near the least-squares one"),
    }
    rounds: int = Field(20, ge=1, le=1000, description="rounds of the splitting (ADMM)")

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """As a column recursion's, and the eigenvectors and the products of every round."""
        total = super().work(groups, tokens, batch_tokens)
        for group in groups:
            wide, rows = group[0].in_features, sum(linear.out_features for linear in group)
            total += Work(products=(2 * self.rounds + 1) * rows * wide**2, factors=_EIGENVECTORS * wide**3)
        return total

    def solve(
        self, rows: StackedRows, hessian: Tensor, factor: InverseFactor, tick: Tick
    ) -> tuple[Tensor, Tensor]:
        scale = hessian.diagonal().sqrt()
        unit = hessian / scale / scale.unsqueeze(1)
        scaled = rows.target * scale
        with paced(tick, 4 * len(unit) ** 3):
            values, vectors = torch.linalg.eigh(unit)
        image, pull = scaled @ unit, _PULL
        del unit
        mask = rows.choose(scaled.abs())
        sparse, gathered = scaled * mask, torch.zeros_like(scaled)
        for _ in range(self.rounds):
            dense = ((image - gathered).add_(sparse, alpha=pull) @ vectors).div_(values + pull) @ vectors.T
            joined = dense + gathered / pull
            mask = rows.choose(joined.abs())
            sparse = joined * mask
            gathered.add_(dense.sub_(sparse), alpha=pull)
            pull *= _GROWTH
            tick(2 * scaled.numel() * len(values))
        return sparse / scale, mask


PASS = Alps
