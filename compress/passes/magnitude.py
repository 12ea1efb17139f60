"""Magnitude pruning: the smallest weights of each layer become zero (Han et al. 2015, arXiv 1506.02626).

Unstructured and layer-wise: every selected layer loses the same share. The mask stays with the block, so that
a later quantization keeps the zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from ..algorithm import BlockPass, float_bytes
from ..anatomy import Linear
from ..block import Block, LayerStatus, weight_error


def smallest_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Bool mask ``[out, in]``, True keeps: exactly ``round(sparsity · n)`` entries of smallest magnitude are
    False.
    """
    drop = round(sparsity * weight.numel())
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    # A stable sort breaks ties by position, so that equal magnitudes give the same mask everywhere.
    mask[weight.abs().flatten().sort(stable=True).indices[:drop]] = False
    return mask.view_as(weight)


class Magnitude(BlockPass):
    """Options of ``magnitude``."""

    sparsity: float = Field(ge=0, lt=1, description="share of the weights of each layer that become zero")

    @property
    def label(self) -> str:
        return f"{self.sparsity:.0%} sparse"

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Magnitudes, sorted magnitudes, and their eight-byte positions."""
        return 4 * max(float_bytes(linear) for linear in layers)

    def apply(self, block: Block) -> None:
        for linear in block.anatomy.linears():
            if self.selects(linear):
                weight = block.weight(linear)
                mask = smallest_mask(weight, self.sparsity)
                earlier = block.masks.get(linear.name)
                mask = mask if earlier is None else mask & earlier
                block.masks[linear.name] = mask
                block.set_weight(linear, weight * mask)
                error = weight_error(weight * ~mask, weight)
                block.statuses.append(
                    LayerStatus(linear.name, "magnitude", self.label, "ok", error, "weight")
                )


PASS = Magnitude
