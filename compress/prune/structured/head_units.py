"""The heads of attention as units: rows of q (and of k and v), and the columns of o that they feed.

With grouped queries either whole groups go, a key/value head with the query heads that share it, or the same
number of query heads out of every group, so that the rest still shares evenly (Ainslie et al. 2023, arXiv
2305.13245). ``head_dim`` stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ...model.block_anatomy import Attention, BlockAnatomy, Linear
from ...model.meta_model import set_heads
from ...pipeline.block import Block
from .part import columns_of, keep_columns, keep_rows

Unit = Literal["groups", "queries"]


@dataclass(frozen=True)
class Heads:
    """``whole``: what a unit is: a key/value head with its query heads, or one query head."""

    whole: Unit
    name: str = "heads"

    def reader(self, block: BlockAnatomy) -> Linear:
        return block.attention.o

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        attention = block.attention
        if attention.qkv is None and self.whole == "queries" and attention.heads != attention.kv_heads:
            return attention.q, attention.o
        return (*attention.projections, attention.o)

    def unit(self, block: BlockAnatomy) -> int:
        return self._shared(block.attention) * block.attention.head_dim

    def partitions(self, block: BlockAnatomy) -> int:
        attention = block.attention
        return attention.kv_heads if self._shared(attention) == 1 != _repeats(attention) else 1

    def makers(self, block: Block) -> list[Tensor]:
        attention = block.anatomy.attention
        if attention.qkv is None:
            query, value = block.weight(attention.q), block.weight(attention.v)
        else:
            rows = block.weight(attention.qkv)[_row_order(attention, torch.device("cpu"))]
            query, value = rows[: attention.q.out_features], rows[-attention.v.out_features :]
        return [query] if self.partitions(block.anatomy) > 1 else [query, value]

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        units = block.attention.heads // self._shared(block.attention)
        step = self.partitions(block)
        return range(step, units + 1, step)

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        attention, size = block.attention, block.attention.head_dim
        heads = count * self._shared(attention)
        kv_heads = attention.kv_heads if self.partitions(block) > 1 else heads // _repeats(attention)
        wide = {"q": heads, "k": kv_heads, "v": kv_heads}
        parts = {name: replace(getattr(attention, name), out_features=n * size) for name, n in wide.items()}
        both = attention.qkv and replace(attention.qkv, out_features=sum(wide.values()) * size)
        o = replace(attention.o, in_features=heads * size)
        narrow = replace(attention, **parts, qkv=both, o=o, heads=heads, kv_heads=kv_heads)
        return replace(block, attention=narrow)

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        before, attention = block.anatomy, block.anatomy.attention
        after = self.narrowed(before, len(units))
        queries = columns_of(units, self.unit(before))
        values = torch.arange(attention.v.out_features, device=units.device)
        if after.attention.kv_heads < attention.kv_heads:
            values = columns_of(units, attention.head_dim)
        for linear, rows in _rows(attention, queries, values):
            if len(rows) < linear.out_features:
                keep_rows(block, linear, rows)
        keep_columns(block, attention.o, queries, weight)
        block.anatomy = after
        set_heads(block.module.get_submodule(block.local(attention.module)), after.attention)

    def _shared(self, attention: Attention) -> int:
        """Query heads of a unit."""
        return _repeats(attention) if self.whole == "groups" else 1


def _repeats(attention: Attention) -> int:
    return attention.heads // attention.kv_heads


def _rows(attention: Attention, queries: Tensor, values: Tensor) -> list[tuple[Linear, Tensor]]:
    """The stored rows of each projection that make the channels ``queries`` of q and ``values`` of k and
    v.
    """
    if attention.qkv is None:
        return [(attention.q, queries), (attention.k, values), (attention.v, values)]
    widths = [attention.q.out_features, attention.k.out_features, attention.v.out_features]
    order = torch.split(_row_order(attention, queries.device), widths)
    kept = torch.cat([order[0][queries], order[1][values], order[2][values]])
    return [(attention.qkv, kept.sort().values)]


def _row_order(attention: Attention, device: torch.device) -> Tensor:
    """The rows of the fused matrix in the order q, k, v ``[rows]``."""
    assert attention.qkv is not None
    return torch.tensor(attention.row_order() or range(attention.qkv.out_features), device=device)
