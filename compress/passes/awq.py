"""AWQ: channels with large activations are scaled up before rounding, and what feeds them is scaled down.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration", arXiv
2306.00978. The factors are searched per link of a block (:mod:`edgepress.compress.solve.folding`) by
the errors they leave under the Gram, without a forward pass, and folded into the norm or linear that feeds
the layers (:mod:`edgepress.compress.solve.folding`), so that the model computes the same function and
nothing is left for the runtime to do. Then each group's span is clipped where the outputs of the group suffer
least, under the diagonal blocks of the Gram.

``quantize: false`` only folds and leaves dense weights, for a quantization that follows::

    passes:
      - {pass: awq, scheme: W4A16-g64, quantize: false}
      - {pass: gptq, scheme: W4A16-g64}

An error of a channel then weighs ``H_jj`` alone, as in GPTQ's own grids: how errors of several channels add
up is for GPTQ to make good.

Of experts each is its own objective, with the tokens that the router sends to it: the norm before all of them
has one set of factors, searched for the sum over the experts and a shared one, each as its share of the
tokens; what comes before down is scaled for each expert by itself.
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from pydantic import Field
from torch import Tensor

from ..model.block_anatomy import Linear
from ..numbers.grid import grids_tried, quantize
from ..numbers.scheme import Scheme, SchemeOption
from ..pipeline.advance import Work
from ..pipeline.algorithm import float_bytes
from ..pipeline.block import Block, LayerStatus
from ..pipeline.block_pass import COARSE_BITS, BlockPass
from ..pipeline.statistics import mean_square_of_outputs
from ..solve.damped_cholesky import all_finite
from ..solve.folding import (
    EXPONENTS,
    SAMPLED_ROWS,
    Found,
    fold,
    foldable_links,
    folded_change,
    folded_loss,
    powers,
    readers_by_tokens,
    sampling_stride,
    search,
)
from ..solve.links import Link

_TRIED = 1 + 2 * len(EXPONENTS)  # factors of a link


class Awq(BlockPass):
    """Options of ``awq``."""

    needs = ("gram",)
    scheme: SchemeOption
    quantize: bool = Field(True, description="whether it rounds too; false only folds the factors")

    @property
    def weight_scheme(self) -> Scheme | None:
        return self.scheme if self.quantize else None

    @property
    def coarse(self) -> bool:
        return self.scheme.bits <= COARSE_BITS

    @property
    def roundings(self) -> int:
        return grids_tried(self.scheme)

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The weights stacked, a Gram divided by the factors, and what rounding takes."""
        stacked = sum(float_bytes(linear) for linear in layers)
        return stacked + 4 * layers[0].in_features ** 2 + super().working_bytes(layers)

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """Also the search for factors, on a part of the rows, and spans weighed by the Gram's blocks."""
        total = super().work(groups, tokens, batch_tokens)
        for group in groups:
            wide, rows = group[0].in_features, sum(linear.out_features for linear in group)
            tried = _TRIED * min(rows, SAMPLED_ROWS) * wide
            total += Work(0.6 * tried * wide * self.quantize, roundings=tried * self.roundings)
            size = wide // self.scheme.groups(wide)
            total += Work((size * self.roundings + 1.1 * wide) * rows * wide * self.quantize)
        return total

    def apply(self, block: Block) -> None:
        factors: dict[str, Tensor] = {}
        details: dict[str, str] = {}
        for link, readers in foldable_links(block, self.selects):
            found = self.factors(block, link, readers)
            if found is not None:
                spread = fold(block, link, found.factors) if found.ratio < 1 else None
                details |= {r.name: f"{found.label} leaves {found.ratio:.0%}" for r in readers}
                factors |= {} if spread is None else {r.name: spread for r in readers}
        for linear in filter(self.selects, block.anatomy.linears()):
            self._finish(block, linear, factors.get(linear.name), details.get(linear.name))

    def factors(self, block: Block, link: Link, readers: list[Linear]) -> Found | None:
        """The factors for a link, or None where the statistics are of no use."""
        groups = [group for group in readers_by_tokens(block, readers) if group.fraction]
        grams = [block.statistic(group.linears[0], "gram") for group in groups]
        if not all(map(all_finite, grams)) or not any(bool((gram.diagonal() > 0).any()) for gram in grams):
            return None
        stride = sampling_stride(readers, len(groups))
        samples = [group.rows(block, stride) for group in groups]
        power = _added_up(
            gram.diagonal().clamp(min=0) * group.fraction for gram, group in zip(grams, groups, strict=True)
        )
        parts = list(zip(groups, grams, samples, strict=True))

        def damage(factors: Tensor) -> float:
            return sum(
                group.fraction * self._loss(block, sample, gram, link.spread(factors))
                for group, gram, sample in parts
            )

        square = _added_up(block.weight(reader).square().sum(0) for reader in readers)
        heavy = (square / sum(reader.out_features for reader in readers)).sqrt()
        tried = powers(link.gathered(power).sqrt(), link.gathered(heavy))
        return search(((label, link.exact(factors)) for label, factors in tried), damage)

    def _loss(self, block: Block, sample: Tensor, gram: Tensor, wide: Tensor) -> float:
        """Of the outputs of ``sample [rows, in]`` with its inputs divided by ``wide [in]``."""
        power = gram.diagonal().clamp(min=0)
        block.tick(
            Work(0.6 * sample.numel() * len(gram), roundings=sample.numel() * self.roundings).multiplications
        )
        if not self.quantize:
            return folded_loss(sample, self.scheme, power, wide)
        return mean_square_of_outputs(folded_change(sample, self.scheme, power, wide), gram)

    def _finish(self, block: Block, linear: Linear, factors: Tensor | None, detail: str | None) -> None:
        """Quantize a layer whose inputs were divided by ``factors [in]``, and say how it fared."""
        detail = detail or "not scaled: nothing feeds it alone"
        if not self.quantize:
            block.statuses.append(LayerStatus(linear.name, "awq", "scaled", "ok", 0.0, "weight", detail))
            return
        weight, mask = block.weight(linear), block.masks.get(linear.name)
        gram = block.statistic(linear, "gram")
        if not all_finite(gram):
            tensor = quantize(weight, self.scheme, mask=mask, tick=block.tick_rounded)
            block.quantize(linear, tensor, "awq", "fallback-rtn", "the Gram is not finite")
            return
        if factors is not None:
            gram = gram / factors.unsqueeze(1) / factors
        blocks = _blocks(gram, self.scheme)
        size = weight.shape[1] // self.scheme.groups(weight.shape[1])

        def tick(roundings: float) -> None:
            block.tick(Work(size * roundings, roundings=roundings).multiplications)

        tensor = quantize(weight, self.scheme, "mse", blocks, mask, tick=tick)
        block.quantize(linear, tensor, "awq", detail=detail, gram=gram)


def _added_up(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors of one shape, of which two are in memory."""
    return reduce(torch.add, parts)


def _blocks(gram: Tensor, scheme: Scheme) -> Tensor | None:
    """The diagonal blocks ``[groups, size, size]`` of ``gram``; None when it is all zero."""
    if not bool((gram.diagonal() > 0).any()):
        return None
    groups = scheme.groups(len(gram))
    size = len(gram) // groups
    return torch.stack([gram[i : i + size, i : i + size] for i in range(0, len(gram), size)])


PASS = Awq
