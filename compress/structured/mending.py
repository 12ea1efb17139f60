"""Mending the place where layers were cut out: the linear before it learns, in closed form, to give what they
gave.

Of the last block before a cut, down (and its bias) is refitted by least squares on its own inputs, so that
what leaves the block is closest to what left the last dropped one in the original, with all that earlier cuts
have changed counted in. As in Shopkhoev et al. 2025, "ReplaceMe: Network Simplification via Depth Pruning and
Transformer Block Linearization", arXiv 2505.02819, the map is folded into a matrix that is there already;
here it is that matrix itself that is fitted, from its inputs on.

A block that normalizes at its end (BERT) is fitted before that norm: its output is taken back through the
norm with the mean and spread that the sum has now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..anatomy import BlockAnatomy, Linear
from ..forward import run_block
from ..skeleton import Skeleton
from .passage import Passage, States
from .repair import Repaired, least_squares

# Channels that the norm scales by less than this share of its largest are left as they are.
_LEAST_SCALE = 1e-2


@dataclass(frozen=True)
class Mended:
    """``fit``: the new down; ``error``: what is left of the gap, squared and relative to the gap."""

    fit: Repaired
    error: float


def mendable(block: BlockAnatomy) -> bool:
    """Whether what down gives is added to the residual as it is."""
    return block.mlp_norm is None


class Gap:
    """Sums over tokens of what the mended linear lacks, and of its inputs."""

    def __init__(self, linear: Linear, device: torch.device) -> None:
        inputs, outputs = linear.in_features, linear.out_features
        self.gram = torch.zeros(inputs, inputs, device=device)
        self.gap = torch.zeros(outputs, inputs, device=device)
        self.mean, self.shift = torch.zeros(inputs, device=device), torch.zeros(outputs, device=device)
        self.power, self.tokens = 0.0, 0

    def add(self, rows: Tensor, lacking: Tensor) -> None:
        """``rows [tokens, in]`` of inputs, ``lacking [tokens, out]`` of the sum they are part of."""
        self.gram.addmm_(rows.T, rows)
        self.gap.addmm_(lacking.T, rows)
        self.mean += rows.sum(0)
        self.shift += lacking.sum(0)
        self.power += float(lacking.square().sum())
        self.tokens += len(rows)

    def fit(self, weight: Tensor, bias: Tensor | None, damping: float) -> Mended:
        """The least-squares down; the error counts what it still lacks."""
        gram, gap = self.gram / self.tokens, self.gap / self.tokens
        mean, shift = self.mean / self.tokens, self.shift / self.tokens
        kept = torch.arange(weight.shape[1], device=weight.device)
        offset = None if bias is None else shift
        found = least_squares(weight, bias, gram, None if bias is None else mean, kept, damping, gap, offset)
        change = found.weight - weight
        moved = torch.zeros_like(shift) if found.bias is None or bias is None else found.bias - bias
        # E‖lacking − ΔW x − Δb‖², multiplied out.
        power = self.power / self.tokens
        left = power - 2 * float((change * gap).sum()) - 2 * float(moved @ shift) + float(moved @ moved)
        left += 2 * float(moved @ (change @ mean)) + float(((change @ gram) * change).sum())
        return Mended(found, max(left, 0.0) / power if power > 0 else 0.0)


def mend(
    passage: Passage, skeleton: Skeleton, block: BlockAnatomy, states: States, wanted: States, damping: float
) -> Mended:
    """Fit down of ``block``, entered by ``states``, so that it leaves ``wanted``; the module is not
    changed."""
    down = skeleton.submodule(block.mlp.down.name)
    gap = Gap(block.mlp.down, skeleton.device)
    for batch, target in zip(passage.batches(block.index, states), wanted, strict=True):
        seen: dict[str, Tensor] = {}
        watched = {"rows": down}
        if block.order == "post":
            watched["sum"] = skeleton.submodule(block.norm2.name)
        handles = [module.register_forward_pre_hook(_keep(seen, name)) for name, module in watched.items()]
        try:
            output = run_block(passage.modules[block.index], batch)
        finally:
            for handle in handles:
                handle.remove()
        lacking = target - output
        if block.order == "post":
            lacking = _before_norm(watched["sum"], seen["sum"], target)
        rows, lacking = seen["rows"].flatten(0, 1), lacking.flatten(0, 1)
        real = slice(None) if batch.mask is None else batch.mask.flatten()
        gap.add(rows[real], lacking[real])
    bias = down.get_parameter("bias") if block.mlp.down.bias else None
    return gap.fit(down.get_parameter("weight"), bias, damping)


def _keep(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[name] = inputs[0]

    return hook


def _before_norm(norm: nn.Module, total: Tensor, wanted: Tensor) -> Tensor:
    """What ``total``, the input of a LayerNorm, lacks to give ``wanted`` at its own mean and spread."""
    scale, offset = norm.get_parameter("weight"), norm.get_parameter("bias")
    mean = total.mean(-1, keepdim=True)
    spread = total.var(-1, keepdim=True, unbiased=False).sqrt()
    usable = scale.abs() > _LEAST_SCALE * scale.abs().max()
    needed = (wanted - offset) / torch.where(usable, scale, torch.ones_like(scale)) * spread + mean
    return torch.where(usable, needed - total, torch.zeros_like(total))
