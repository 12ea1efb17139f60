"""Folding per-channel factors into the weights on both sides of a link; the model computes the same function.

A link (:mod:`.links`) says what feeds what with nothing but scaling-proof maps between: there the first may
be divided by a factor and the second multiplied by it (SmoothQuant, Xiao et al. 2022, arXiv 2211.10438; AWQ,
Lin et al. 2023, arXiv 2306.00978).

Which factors: powers of what the channels carry are tried, and the ones that do the least damage are taken;
what a candidate damages is the caller's to say, and factors of one are tried first and win ties. AWQ raises
weights whose activations are large, and may lower those that are large themselves; SmoothQuant shares the
peaks between the two sides.

What is stored is rounded, so the readers are multiplied by what the source was really divided by: for a norm
the two cancel exactly, whatever the precision. Where a later pass compares, the original block is folded
alike: its inputs must be in the same units as the block's.

Readers of one link may read different tokens: each expert those that come to it. What a candidate damages is
then the sum over the groups of readers, each by its own statistics and as its share of all tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.block_anatomy import Linear, Norm
from ..numbers.grid import quantize
from ..numbers.scheme import Scheme
from ..pipeline.block import Block
from .links import Link, index, links

EXPONENTS = tuple(step / 10 for step in range(1, 11))
# Rows of weights that a search rounds, at least, and of each group of readers where there are many experts.
SAMPLED_ROWS, _ROWS_OF_A_GROUP = 384, 16
_FLOOR = 1e-4  # of the largest magnitude: what a channel that never fires counts as

Candidates = Iterable[tuple[str, Tensor]]


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
    for gate in link.gates:
        block.set_parameter(f"{gate}.weight", block.parameter(f"{gate}.weight") * spread)
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
    for reader in (*(reader.name for reader in link.readers), *link.gates):
        found[block.local(f"{reader}.weight")].mul_(spread)


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
class Readers:
    """Readers of a link that read the same tokens, and their ``fraction`` of the tokens that all of the
    link's read.
    """

    linears: tuple[Linear, ...]
    fraction: float

    def rows(self, block: Block, stride: int) -> Tensor:
        """Every so many of the rows of their weights above one another, ``[rows, in]``."""
        parts, start = [], 0
        for linear in self.linears:
            parts.append(block.weight(linear)[-start % stride :: stride])
            start += linear.out_features
        return torch.cat(parts)


def readers_by_tokens(block: Block, readers: Sequence[Linear]) -> list[Readers]:
    """``readers`` by the tokens that they read; those of experts that no token came to count nothing."""
    names = {reader.name for reader in readers}
    groups = [tuple(one for one in group if one.name in names) for group in block.anatomy.inputs()]
    groups = [group for group in groups if group]
    if block.anatomy.experts is None or len(groups) == 1:
        return [Readers(tuple(readers), 1.0)]
    tokens = [float(block.statistic(group[0], "tokens")) for group in groups]
    total = max(sum(tokens), 1.0)
    return [Readers(group, count / total) for group, count in zip(groups, tokens, strict=True)]


def sampling_stride(readers: Sequence[Linear], groups: int) -> int:
    """Every how many rows of the weights of ``readers`` one is rounded in a search, since all have the same
    factors; of many ``groups`` more are.
    """
    rows = sum(reader.out_features for reader in readers)
    return -(-rows // max(SAMPLED_ROWS, _ROWS_OF_A_GROUP * groups))


def largest_weights(block: Block, readers: Sequence[Linear]) -> Tensor:
    """The largest magnitude in each column of the weights of ``readers`` ``[in]``, one at a time."""
    return torch.stack([block.weight(reader).abs().amax(0) for reader in readers]).amax(0)


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


def folded_change(sample: Tensor, scheme: Scheme, power: Tensor, factors: Tensor) -> Tensor:
    """``[rows, in]``: what rounding to nearest changes of the rows ``sample [rows, in]`` times ``factors
    [in]``, in units of the sample; its inputs have the mean square ``power [in]``.
    """
    rounded = quantize(sample * factors, scheme, "mse", power / factors.square())
    return rounded.dequantize() / factors - sample


def folded_loss(sample: Tensor, scheme: Scheme, power: Tensor, factors: Tensor) -> float:
    """The squared error of all outputs of ``sample [rows, in]`` that :func:`folded_change` makes, where
    errors of channels are independent.
    """
    return float((folded_change(sample, scheme, power, factors).square() @ power).sum())


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
