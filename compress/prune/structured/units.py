"""The units that a block can lose: the channels of its MLP, or the heads of its attention, in a decoder also
those of its attention to the encoder's states.

A unit is a run of input columns of one linear, the ``reader`` (down, or o), with the rows of other linears
that make them. Units fall into ``partitions`` that lose equally many, as the query heads of a key/value head
must: with grouped queries either whole groups go, a key/value head with the query heads that share it, or the
same number of query heads out of every group, so that the rest still shares evenly (Ainslie et al. 2023,
arXiv 2305.13245). ``head_dim`` stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ...model.block_anatomy import Attention, BlockAnatomy, Linear
from ...model.meta_model import set_heads
from ...pipeline.block import Block
from ...solve.elimination import columns_of

MOST_CHOICES = 64
POSITION_BIAS = "position_bias"  # as attention calls what is added to its scores by distance (T5)
Unit = Literal["groups", "queries"]


class PrunablePart(Protocol):
    """What the passes know of a part. Counts are of units kept in a block."""

    @property
    def name(self) -> str:
        """``ffn``, ``heads`` or ``cross_heads``."""

    def there(self, block: BlockAnatomy) -> bool:
        """Whether ``block`` has the part."""

    def reader(self, block: BlockAnatomy) -> Linear:
        """The linear whose inputs are the units."""

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        """All linears that shrink, the reader last."""

    def unit(self, block: BlockAnatomy) -> int:
        """Input columns of the reader that one unit has."""

    def partitions(self, block: BlockAnatomy) -> int:
        """Runs of units, equally long, that lose equally many."""

    def makers(self, block: Block) -> list[Tensor]:
        """The rows that make the units, unit after unit: one matrix ``[units · …, hidden]`` a linear."""

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        """How many units may be kept, ascending; the last is all of them."""

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        """The block with ``count`` units."""

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        """Keep ``units`` (ascending) of ``block``, whose reader gets ``weight [out, kept columns]``."""


def weights_in(linears: Sequence[Linear]) -> int:
    """How many weights ``linears`` have, biases aside."""
    return sum(linear.out_features * linear.in_features for linear in linears)


def keep_rows(block: Block, linear: Linear, rows: Tensor) -> Linear:
    """Keep the outputs ``rows`` of a linear: its weight, bias and mask; returns what it is now."""
    weight, mask = block.weight(linear)[rows], block.masks.get(linear.name)
    if linear.bias:
        name = f"{linear.name}.bias"
        block.set_parameter(name, block.parameter(name)[rows])
    if mask is not None:
        block.masks[linear.name] = mask[rows]
    return _resized(block, replace(linear, out_features=len(rows)), weight)


def keep_columns(block: Block, linear: Linear, columns: Tensor, weight: Tensor) -> Linear:
    """Keep the inputs ``columns`` of a linear, whose weight becomes ``weight [out, columns]``."""
    mask = block.masks.get(linear.name)
    if mask is not None:
        block.masks[linear.name] = mask[:, columns]
    return _resized(block, replace(linear, in_features=len(columns)), weight)


def _resized(block: Block, linear: Linear, weight: Tensor) -> Linear:
    module = block.linears[linear.name]
    module.out_features, module.in_features = linear.out_features, linear.in_features
    block.set_weight(linear, weight.contiguous())
    return linear


@dataclass(frozen=True)
class ChannelUnits:
    """Widths are multiples of ``multiple``, so that kernels and quantization groups fit. Experts of a block
    are of one width: it is asked of a block with one of them in the place of all.
    """

    multiple: int
    name: str = "ffn"

    def there(self, block: BlockAnatomy) -> bool:
        return True

    def reader(self, block: BlockAnatomy) -> Linear:
        return block.mlp.down

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        if block.experts is not None:
            return tuple(block.expert_linears())
        return (*block.mlp.projections, block.mlp.down)

    def unit(self, block: BlockAnatomy) -> int:
        return 1

    def partitions(self, block: BlockAnatomy) -> int:
        return 1

    def makers(self, block: Block) -> list[Tensor]:
        mlp = block.anatomy.mlp
        weights = [block.weight(linear) for linear in mlp.projections]
        return weights if mlp.gate_up is None else list(weights[0][self._rows(block.anatomy)].chunk(2))

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        """At most about ``MOST_CHOICES`` multiples, and the whole width."""
        width = block.mlp.up.out_features
        step = self.multiple * -(-width // (self.multiple * MOST_CHOICES))
        return [*range(step, width, step), width]

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        mlp = block.mlp
        gate = mlp.gate and replace(mlp.gate, out_features=count)
        up, down = replace(mlp.up, out_features=count), replace(mlp.down, in_features=count)
        both = mlp.gate_up and replace(mlp.gate_up, out_features=2 * count)
        return replace(block, feed_forward=replace(mlp, gate=gate, up=up, down=down, gate_up=both))

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        before = block.anatomy
        width = before.mlp.up.out_features
        rows = units
        if before.mlp.gate_up is not None:
            rows = self._rows(before).to(units.device)[torch.cat([units, width + units])].sort().values
        for linear in before.mlp.projections:
            keep_rows(block, linear, rows)
        keep_columns(block, before.mlp.down, units, weight)
        block.anatomy = self.narrowed(before, len(units))

    @staticmethod
    def _rows(block: BlockAnatomy) -> Tensor:
        """The rows of the matrix of gate and up in the order of gate, then up."""
        assert block.mlp.gate_up is not None
        both = block.mlp.gate_up
        return torch.tensor(block.mlp.row_orders().get(both.name, range(both.out_features)))


@dataclass(frozen=True)
class HeadUnits:
    """``whole``: what a unit is: a key/value head with its query heads, or one query head. With ``cross`` of
    the attention to an encoder's states.
    """

    whole: Unit
    cross: bool = False

    @property
    def name(self) -> str:
        return "cross_heads" if self.cross else "heads"

    def there(self, block: BlockAnatomy) -> bool:
        return block.cross is not None or not self.cross

    def attention(self, block: BlockAnatomy) -> Attention:
        """Whose heads they are, of a block where it is there."""
        part = block.cross if self.cross else block.attention
        assert part is not None
        return part

    def reader(self, block: BlockAnatomy) -> Linear:
        return self.attention(block).o

    def linears(self, block: BlockAnatomy) -> tuple[Linear, ...]:
        attention = self.attention(block)
        if attention.qkv is None and self.whole == "queries" and attention.heads != attention.kv_heads:
            return attention.q, attention.o
        return (*attention.projections, attention.o)

    def unit(self, block: BlockAnatomy) -> int:
        return self._shared(self.attention(block)) * self.attention(block).head_dim

    def partitions(self, block: BlockAnatomy) -> int:
        attention = self.attention(block)
        return attention.kv_heads if self._shared(attention) == 1 != _repeats(attention) else 1

    def makers(self, block: Block) -> list[Tensor]:
        attention = self.attention(block.anatomy)
        if attention.qkv is None:
            query, value = block.weight(attention.q), block.weight(attention.v)
        else:
            rows = block.weight(attention.qkv)[_row_order(attention, torch.device("cpu"))]
            query, value = rows[: attention.q.out_features], rows[-attention.v.out_features :]
        return [query] if self.partitions(block.anatomy) > 1 else [query, value]

    def counts(self, block: BlockAnatomy) -> Sequence[int]:
        units = self.attention(block).heads // self._shared(self.attention(block))
        step = self.partitions(block)
        return range(step, units + 1, step)

    def narrowed(self, block: BlockAnatomy, count: int) -> BlockAnatomy:
        attention, size = self.attention(block), self.attention(block).head_dim
        heads = count * self._shared(attention)
        kv_heads = attention.kv_heads if self.partitions(block) > 1 else heads // _repeats(attention)
        wide = {"q": heads, "k": kv_heads, "v": kv_heads}
        parts = {name: replace(getattr(attention, name), out_features=n * size) for name, n in wide.items()}
        both = attention.qkv and replace(attention.qkv, out_features=sum(wide.values()) * size)
        o = replace(attention.o, in_features=heads * size)
        narrow = replace(attention, **parts, qkv=both, o=o, heads=heads, kv_heads=kv_heads)
        return replace(block, cross=narrow) if self.cross else replace(block, mixer=narrow)

    def cut(self, block: Block, units: Tensor, weight: Tensor) -> None:
        before, attention = block.anatomy, self.attention(block.anatomy)
        after = self.narrowed(before, len(units))
        queries = columns_of(units, self.unit(before))
        values = torch.arange(attention.v.out_features, device=units.device)
        if self.attention(after).kv_heads < attention.kv_heads:
            values = columns_of(units, attention.head_dim)
        for linear, rows in _rows(attention, queries, values):
            if len(rows) < linear.out_features:
                keep_rows(block, linear, rows)
        keep_columns(block, attention.o, queries, weight)
        if attention.sinks is not None:
            heads = queries[:: attention.head_dim] // attention.head_dim
            block.set_parameter(attention.sinks, block.parameter(attention.sinks)[heads])
        block.anatomy = after
        module = block.module.get_submodule(block.local(attention.module))
        set_heads(module, self.attention(after))
        if self.unit(before) == attention.head_dim:
            module.register_forward_pre_hook(partial(_biased, units, attention.heads), with_kwargs=True)

    def _shared(self, attention: Attention) -> int:
        """Query heads of a unit."""
        return _repeats(attention) if self.whole == "groups" else 1


def _biased(
    units: Tensor, heads: int, _: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An attention's arguments with the biases ``[1, heads, queries, keys]`` of the heads ``units``, where it
    gets those of all, which the first block of the stack had.
    """
    bias = named.get(POSITION_BIAS)
    if isinstance(bias, Tensor) and bias.shape[1] == heads:
        named = {**named, POSITION_BIAS: bias[:, units]}
    return positional, named


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
