"""Mending the place where layers were cut out: the linear before it learns, in closed form, to give what they
gave.

Of the last block before a cut, down (and its bias) is refitted by least squares on its own inputs, so that
what leaves the block is closest to what left the last dropped one in the original, with all that earlier cuts
have changed counted in. As in Shopkhoev et al. 2025, "ReplaceMe: Network Simplification via Depth Pruning and
Transformer Block Linearization", arXiv 2505.02819, the map is folded into a matrix that is there already;
here it is that matrix itself that is fitted, from its inputs on.

A block that normalizes at its end (BERT) is fitted before that norm: its output is taken back through the
norm with the mean and spread that the sum has now.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...model.block_anatomy import BlockAnatomy
from ...model.skeleton import Skeleton
from .model_batches import Passage, States
from .residual_error import Fitted, Gap, fit_gap, reader_of_sum, seen

# Channels that the norm scales by less than this share of its largest are left as they are.
_LEAST_SCALE = 1e-2


def mend(
    passage: Passage,
    skeleton: Skeleton,
    block: BlockAnatomy,
    states: States,
    wanted: States,
    damping: float | None,
) -> Fitted:
    """Fit down of ``block``, entered by ``states``, so that it leaves ``wanted``; the module is not changed.
    ``damping`` as in :func:`~edgepress.compress.solve.damped_cholesky.fit_halves`.
    """
    linear = block.mlp.down
    down, norm = skeleton.submodule(linear.name), reader_of_sum(block, linear)
    halves, watched = (Gap(linear, skeleton.device), Gap(linear, skeleton.device)), {"rows": down}
    if norm is not None:
        watched["sum"] = skeleton.submodule(norm.name)
    for number, (batch, target) in enumerate(zip(passage.batches(block.index, states), wanted, strict=True)):
        found = seen(passage.modules[block.index], watched, batch)
        lacking = target - found["output"]
        if norm is not None:
            lacking = _before_norm(watched["sum"], found["sum"], target)
        halves[number % 2].add(found["rows"], lacking, batch.mask)
    weight = down.get_parameter("weight")
    kept = torch.arange(linear.in_features, device=weight.device)
    return fit_gap(halves, weight, down.get_parameter("bias") if linear.bias else None, kept, damping)


def _before_norm(norm: nn.Module, total: Tensor, wanted: Tensor) -> Tensor:
    """What ``total``, the input of a LayerNorm, lacks to give ``wanted`` at its own mean and spread."""
    scale, offset = norm.get_parameter("weight"), norm.get_parameter("bias")
    mean = total.mean(-1, keepdim=True)
    spread = total.var(-1, keepdim=True, unbiased=False).sqrt()
    usable = scale.abs() > _LEAST_SCALE * scale.abs().max()
    needed = (wanted - offset) / torch.where(usable, scale, torch.ones_like(scale)) * spread + mean
    return torch.where(usable, needed - total, torch.zeros_like(total))
