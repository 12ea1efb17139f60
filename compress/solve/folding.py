"""Folding per-channel factors into the weights on both sides of a link; the model computes the same function.

A link says what feeds what with nothing but scaling-proof maps between: there the first may be divided by a
factor and the second multiplied by it (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438; AWQ, Lin et al. 2023,
arXiv 2306.00978). It is data, derived from the anatomy:

- a norm and all linears that read it, where nothing else does: in ``pre`` and ``parallel`` blocks. The norms
  of ``post`` blocks also give the residual and have no link.
- v and o: attention mixes tokens, never channels; nor does a short convolution, and c feeds what is last.
  Query heads that share a value head share its factors. So
  do attention to an encoder and the norm before it; what feeds its k and v is in another block.
- up and down: through the product with the gate, or through ReLU, which lets positive factors pass.
- where a norm stands between the two, that norm and o, or down.

Which factors: powers of what the channels carry are tried, and the ones that do the least damage are taken;
what a candidate damages is the caller's to say, and factors of one are tried first and win ties. AWQ raises
weights whose activations are large, and may lower those that are large themselves; SmoothQuant shares the
peaks between the two sides.

What is stored is rounded, so the readers are multiplied by what the source was really divided by: for a norm
the two cancel exactly, whatever the precision. Where a later pass compares, the original block is folded
alike: its inputs must be in the same units as the block's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.block_anatomy import Attention, BlockAnatomy, Linear, Mlp, Norm
from ..model.block_parts.mixer_anatomy import HeadedStateSpace, Mixer, ShortConvolution, StateSpace
from ..pipeline.block import Block

EXPONENTS = tuple(step / 10 for step in range(1, 11))
_FLOOR = 1e-4  # of the largest magnitude: what a channel that never fires counts as

Candidates = Iterable[tuple[str, Tensor]]


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
    mixer, mlp = block.mixer, block.feed_forward
    entry = block.entry_norm
    shared = entry == block.norm2
    if entry is not None:
        beside = mlp.projections if shared and mlp is not None else ()
        yield Link(entry, (*mixer.projections, *beside))
    yield from _inner_links(mixer)
    cross = block.cross
    if cross is not None:
        if block.cross_norm is not None and entry is not None:
            yield Link(block.cross_norm, (cross.q,))
        yield values_link(cross)
    if mlp is None:
        return
    if block.order not in ("post", "behind") and not shared:
        yield Link(block.norm2, mlp.projections)
    if mlp.inner_norm is not None:
        yield Link(mlp.inner_norm, (mlp.down,))
    elif mlp.gate is not None or mlp.activation == "relu":
        yield _intermediate(mlp)


def _inner_links(mixer: Attention | Mixer) -> Iterator[Link]:
    """The link to the linear that is last in a mixer: from v or a norm, or from c, which its convolution is
    multiplied by. What Mamba's reads comes through functions that no factor passes.
    """
    if isinstance(mixer, StateSpace):
        return
    if isinstance(mixer, HeadedStateSpace):
        yield Link(mixer.norm, (mixer.out_proj,))
    elif isinstance(mixer, ShortConvolution):
        width = mixer.out_proj.in_features
        yield Link(mixer.in_proj, (mixer.out_proj,), tuple(range(width, 2 * width)))
    else:
        yield values_link(mixer) if mixer.inner_norm is None else Link(mixer.inner_norm, (mixer.o,))


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


def foldable_links(block: Block, selects: Callable[[Linear], bool]) -> Iterator[tuple[Link, list[Linear]]]:
    """The links of a block with those of their readers that a pass ``selects``; none where no reader is, and
    none of which a weight has been quantized already.
    """
    for link in links(block.anatomy):
        readers = list(filter(selects, link.readers))
        linears = [part for part in (link.source, *link.readers) if isinstance(part, Linear)]
        if readers and not any(linear.name in block.quantized for linear in linears):
            yield link, readers


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
        parts = [bias] if source.bias else []
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
    if norm.bias:
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


@dataclass(frozen=True)
class Found:
    """``factors [channels]``, how they were made, and their damage as a ratio to the first one's."""

    factors: Tensor
    label: str
    ratio: float


def search(candidates: Candidates, damage: Callable[[Tensor], float]) -> Found:
    """The candidate with the least ``damage``; the first one is what the others are measured by."""
    found: Found | None = None
    plain = 0.0
    for label, factors in candidates:
        loss = damage(factors)
        if found is None:
            found, plain = Found(factors, label, 1.0), loss
        elif loss < found.ratio * plain:
            found = Found(factors, label, loss / plain)
    assert found is not None
    return found


def powers(activations: Tensor, weights: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Powers of the activations, alone and over the complementary power of the weights, ``[channels]``."""
    yield "1", torch.ones_like(activations)
    large, heavy = _floored(activations), _floored(weights)
    for exponent in EXPONENTS:
        yield f"x^{exponent:g}", _centred(large**exponent)
        yield f"x^{exponent:g} / w^{1 - exponent:g}", _centred(large**exponent / heavy ** (1 - exponent))


def migrations(activations: Tensor, weights: Tensor, exponents: Iterable[float]) -> Candidates:
    """Peaks of the activations over those of the weights, ``x^α / w^(1−α)`` ``[channels]``."""
    yield "1", torch.ones_like(activations)
    large, heavy = _floored(activations), _floored(weights)
    for exponent in exponents:
        yield f"x^{exponent:g} / w^{1 - exponent:g}", _centred(large**exponent / heavy ** (1 - exponent))


def _floored(magnitudes: Tensor) -> Tensor:
    return magnitudes.clamp(min=max(float(magnitudes.max()) * _FLOOR, torch.finfo(torch.float32).tiny))


def _centred(factors: Tensor) -> Tensor:
    return factors / (factors.max().sqrt() * factors.min().sqrt())
