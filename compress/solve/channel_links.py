"""Which part of a block feeds which linears with nothing but scaling-proof maps between: what feeds what.

Where a channel passes from one part to the next so, the first may be divided by a factor and the second
multiplied by it, and the model computes the same function (Xiao et al. 2022, arXiv 2211.10438; Lin et al.
2023, arXiv 2306.00978). A link is data, derived from the anatomy:

- a norm and all linears that read it, where nothing else does: in ``pre`` and ``parallel`` blocks. The norms
  of ``post`` blocks also give the residual and have no link.
- v and o: attention mixes tokens, never channels. Query heads that share a value head share its factors.
- up and down: through the product with the gate, or through ReLU, which lets positive factors pass.
- where a norm stands between the two, that norm and o, or down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm


@dataclass(frozen=True)
class Link:
    """``source`` feeds ``readers``, which all read the same channels.

    Attributes:
        rows: the rows of a linear ``source`` that are its channels, in order; None for all of them.
        heads: ``(kv_heads, repeats, head_dim)`` where source channels are repeated for several readers'
            channels; None where the two are the same.
    """

    source: Norm | Linear
    readers: tuple[Linear, ...]
    rows: tuple[int, ...] | None = None
    heads: tuple[int, int, int] | None = None

    def spread(self, factors: Tensor) -> Tensor:
        """Factors of the source's channels ``[channels]`` as those of the readers' inputs ``[in]``."""
        if self.heads is None:
            return factors
        kv_heads, repeats, head_dim = self.heads
        return factors.view(kv_heads, 1, head_dim).expand(-1, repeats, -1).reshape(-1)

    def gathered(self, values: Tensor) -> Tensor:
        """The mean over the readers' inputs ``[in]`` that share a channel of the source ``[channels]``."""
        if self.heads is None:
            return values
        kv_heads, repeats, head_dim = self.heads
        return values.view(kv_heads, repeats, head_dim).mean(1).reshape(-1)

    def peaks(self, values: Tensor) -> Tensor:
        """The largest of the readers' inputs ``[in]`` that share a channel of the source ``[channels]``."""
        if self.heads is None:
            return values
        kv_heads, repeats, head_dim = self.heads
        return values.view(kv_heads, repeats, head_dim).amax(1).reshape(-1)


def links(block: BlockAnatomy) -> Iterator[Link]:
    """The links of a block, in the order of the forward pass."""
    attention, mlp = block.attention, block.mlp
    shared = block.norm1 == block.norm2
    if block.order != "post":
        beside = mlp.projections if shared else ()
        yield Link(block.norm1, (*attention.projections, *beside))
    inner = attention.inner_norm
    yield values_link(attention) if inner is None else Link(inner, (attention.o,))
    if block.order != "post" and not shared:
        yield Link(block.norm2, mlp.projections)
    if mlp.inner_norm is not None:
        yield Link(mlp.inner_norm, (mlp.down,))
    elif mlp.gate is not None or mlp.activation == "relu":
        yield _intermediate(mlp)


def values_link(attention: Attention) -> Link:
    """The link from v to o."""
    heads = (attention.kv_heads, attention.heads // attention.kv_heads, attention.head_dim)
    shape = None if heads[1] == 1 else heads
    if attention.qkv is None:
        return Link(attention.v, (attention.o,), heads=shape)
    width = attention.v.out_features
    order = attention.row_order() or range(attention.qkv.out_features)
    return Link(attention.qkv, (attention.o,), tuple(order[-width:]), shape)


def _intermediate(mlp: Mlp) -> Link:
    if mlp.gate_up is None:
        return Link(mlp.up, (mlp.down,))
    width = mlp.up.out_features
    return Link(mlp.gate_up, (mlp.down,), tuple(range(width, 2 * width)))


def index(link: Link, device: torch.device) -> Tensor | slice:
    """What selects the source's channels among its rows."""
    return slice(None) if link.rows is None else torch.tensor(link.rows, device=device)
