"""Folding per-channel factors into the weights on both sides of a link; the model computes the same function.

The source is divided, its readers multiplied. What is stored is rounded, so the readers are multiplied by
what the source was really divided by: for a norm the two cancel exactly, whatever the precision. Where a
later pass compares, the original block is folded alike: its inputs must be in the same units as the block's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..model.block_anatomy import Linear, Norm
from ..pipeline.block import Block
from .channel_links import Link, index


def foldable(block: Block, link: Link) -> bool:
    """Whether no weight of the link has been quantized already."""
    linears = [part for part in (link.source, *link.readers) if isinstance(part, Linear)]
    return not any(linear.name in block.quantized for linear in linears)


def fold(block: Block, link: Link, factors: Tensor) -> Tensor:
    """Divide the channels of ``link.source`` by ``factors [channels]`` (positive) and multiply its readers'.

    Returns what the input channels of the readers were multiplied by ``[in]``.
    """
    source = link.source
    if isinstance(source, Norm):
        factors = _divide_norm(block, source, factors)
    else:
        _divide_rows(block, source, index(link, factors.device), factors)
    spread = link.spread(factors)
    for reader in link.readers:
        block.set_weight(reader, block.weight(reader) * spread)
    if block.original is not None:
        _fold_original(block, link, factors, spread)
    return spread


@torch.no_grad()
def _fold_original(block: Block, link: Link, factors: Tensor, spread: Tensor) -> None:
    assert block.original is not None
    found = {name: parameter.detach() for name, parameter in block.original.named_parameters()}
    source = link.source
    weight = found[block.local(f"{source.name}.weight")]
    bias = found.get(block.local(f"{source.name}.bias"))
    if isinstance(source, Norm):
        weight.copy_((source.offset + weight) / factors - source.offset)
        parts = [] if source.kind == "rms" else [bias]
        rows: Tensor | slice = slice(None)
    else:
        parts, rows = [weight, bias], index(link, factors.device)
    for part in parts:
        if part is not None:
            part[rows] /= factors.view(-1, *[1] * (part.ndim - 1))
    for reader in link.readers:
        found[block.local(f"{reader.name}.weight")].mul_(spread)


def _divide_norm(block: Block, norm: Norm, factors: Tensor) -> Tensor:
    name = f"{norm.name}.weight"
    before = norm.offset + block.parameter(name)
    after = norm.offset + block.set_parameter(name, before / factors - norm.offset)
    real = before / after
    # A channel whose scale is zero gives nothing but its bias, and any factor leaves it so.
    real = torch.where(torch.isfinite(real) & (real > 0), real, factors)
    if norm.kind == "layer":
        bias = f"{norm.name}.bias"
        block.set_parameter(bias, block.parameter(bias) / real)
    return real


def _divide_rows(block: Block, linear: Linear, rows: Tensor | slice, factors: Tensor) -> None:
    weight = block.weight(linear).clone()
    weight[rows] /= factors.unsqueeze(1)
    block.set_weight(linear, weight)
    if linear.bias:
        name = f"{linear.name}.bias"
        bias = block.parameter(name).clone()
        bias[rows] /= factors
        block.set_parameter(name, bias)
