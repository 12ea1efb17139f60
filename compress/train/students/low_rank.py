"""``LowRank``: a weight that learns as the product of two thin matrices, and is one matrix afterwards.

LoRA: Hu et al. 2021, arXiv 2106.09685. The optimizer holds ``rank · (out + in)`` numbers in the place of
``out · in``. The weight is merged in every forward pass: masked, and rounded as it is stored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...numbers.straight_through import straight_through
from .relative import Learned, Rounding


class LowRank(nn.Module):
    """``rounded(start + unit · up · down)`` with ``up [out, rank]``, zero at first, and ``down [rank, in]``.
    Where ``mask`` is False the value is zero.
    """

    unit: Tensor
    mask: Tensor | None

    def __init__(
        self, start: Tensor, unit: Tensor, rounded: Rounding, rank: int, seed: int, mask: Tensor | None
    ) -> None:
        super().__init__()
        out_features, in_features = start.shape
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, in_features, generator=generator) * rank**-0.5
        self.down = nn.Parameter(down.to(start.device))
        self.up = nn.Parameter(torch.zeros(out_features, rank, device=start.device))
        self.register_buffer("unit", unit.detach())
        self.register_buffer("mask", mask)
        self.rounded = rounded

    def forward(self, start: Tensor) -> Tensor:
        value = torch.addcmul(start, self.unit, self.up @ self.down)
        if self.mask is not None:
            value = torch.where(self.mask, value, 0.0)
        return straight_through(value, self.rounded(value.detach()))


def learn_low_rank(
    name: str,
    module: nn.Module,
    unit: Tensor,
    rounded: Rounding,
    rank: int,
    seed: int,
    mask: Tensor | None = None,
) -> Learned:
    """Let the weight of the linear ``module`` learn as a product of rank at most ``rank``."""
    start = module.get_parameter("weight").detach()
    rank = min(rank, *start.shape)
    low_rank = LowRank(start, unit, rounded, rank, seed, mask)
    parametrize.register_parametrization(module, "weight", low_rank, unsafe=True)
    place = "parametrizations.weight.0"
    return Learned(name, module, "weight", (f"{place}.up", f"{place}.down"))
