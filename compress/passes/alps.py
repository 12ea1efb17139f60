"""ALPS: which weights stay is found together with what they become, by splitting the two (ADMM).

Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models",
arXiv 2406.07831. The layer's output error is lessened over a dense weight ``B`` and a sparse one ``D`` that
are pulled together ever harder (ρ grows): ``B`` solves ``(H + ρI) B = H W − V + ρD``, ``D`` keeps the largest
entries of ``B + V/ρ``, and ``V`` gathers what still parts them. Channels are scaled to a unit diagonal of
``H`` first. What is left at the end is fitted by least squares.

Of the pruning passes the slowest and the closest: two matrix products a round.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from ..prune.gram_pruning import GramPruning, Rows
from ..solve.damped_cholesky import InverseFactor


class Alps(GramPruning):
    """Options of ``alps``."""

    rounds: int = Field(20, ge=1, le=1000, description="of the splitting")
    pull: float = Field(0.1, gt=0, description="the first ρ, where H has a unit diagonal")
    growth: float = Field(1.3, ge=1, description="factor on ρ after each round")

    def solve(self, rows: Rows, hessian: Tensor, factor: InverseFactor) -> tuple[Tensor, Tensor]:
        scale = hessian.diagonal().sqrt()
        unit = hessian / scale / scale.unsqueeze(1)
        scaled = rows.target * scale
        values, vectors = torch.linalg.eigh(unit)
        image, pull = scaled @ unit, self.pull
        del unit
        mask = rows.choose(scaled.abs())
        sparse, gathered = scaled * mask, torch.zeros_like(scaled)
        for _ in range(self.rounds):
            dense = ((image - gathered).add_(sparse, alpha=pull) @ vectors).div_(values + pull) @ vectors.T
            joined = dense + gathered / pull
            mask = rows.choose(joined.abs())
            sparse = joined * mask
            gathered.add_(dense.sub_(sparse), alpha=pull)
            pull *= self.growth
        return sparse / scale, mask


PASS = Alps
