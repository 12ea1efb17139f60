"""Folding per-channel factors into the weights on both sides of a link; the model computes the same function.

The source is divided, its readers multiplied. What is stored is rounded, so the readers are multiplied by
what the source was really divided by: for a norm the two cancel exactly, whatever the precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .anatomy import Linear, Norm
from .block import Block
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
    return spread


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
