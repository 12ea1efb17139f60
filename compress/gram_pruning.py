"""``GramPruning``: what the passes that prune under the Gram of a layer's inputs have in common.

Layers that read the same inputs are solved together, one above the other. A pass says which weights stay and
what they become; here is what comes before and after it: the inputs, collected anew for each group of layers
when asked; the target, which may make up for the error of earlier layers (:mod:`.corrected_target`), each
once, and so from inputs collected anew; the fit of what is left (:mod:`.support_fit`); the status. A Gram
that does not factor is damped ten times stronger, step by step; a layer that still fails is pruned by
magnitude and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from .algorithm import float_bytes
from .anatomy import Linear
from .block import Block, LayerStatus, output_error, weight_error
from .corrected_target import corrected
from .inverse_factor import MAX_DAMPING, Factor, all_finite, damped, factorize
from .pruning import Pruning
from .sparsity import Scope
from .statistics import STATISTIC_BYTES
from .support_fit import fit_support

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """Layers above one another: ``target [rows, in]``, and for each its rows and what is pruned already."""

    layers: Sequence[Linear]
    target: Tensor
    earlier: Sequence[Tensor | None]
    options: Pruning
    scope: Scope

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """``rows [rows, …]`` by layer."""
        return torch.split(rows, [linear.out_features for linear in self.layers])

    def choose(self, score: Tensor, columns: slice = slice(None)) -> Tensor:
        """The mask of the channels ``columns``: each layer's own lowest ``score [rows, columns]`` go."""
        masks = []
        for linear, part, known in zip(self.layers, self.split(score), self.earlier, strict=True):
            masks.append(
                self.options.keep(linear, part, self.scope, None if known is None else known[:, columns])
            )
        return torch.cat(masks)


class GramPruning(Pruning):
    """Options of every such pass."""

    scope: Scope = "layer"
    damping: float = Field(
        0.01, gt=0, le=1, description="share of the mean Gram diagonal added before factoring"
    )
    correction: float = Field(
        0.0, ge=0, le=1, description="share of the error of earlier layers that is made up for"
    )
    sequential: bool = Field(
        False, description="collect the inputs of each group in a block anew; correction always does"
    )
    fit_steps: int = Field(
        10, ge=0, le=1000, description="steps of the least-squares fit of what is left; 0 for none"
    )

    @property
    def statistics(self) -> tuple[str, ...]:
        """What a group of layers is solved from."""
        return ("gram", "cross_gram") if self.correction else ("gram",)

    @property
    def collects_anew(self) -> bool:
        """Whether the inputs of each group are looked at when those before it in the block are pruned."""
        return self.sequential or self.correction > 0

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.collects_anew else self.statistics

    @property
    def reads_batches(self) -> bool:  # type: ignore[override]
        return self.collects_anew

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.correction > 0

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Two squares, five copies of the stacked weights; the statistics where they are collected here."""
        own = sum(STATISTIC_BYTES[name](layers[0].in_features) for name in self.statistics)
        square = 4 * layers[0].in_features ** 2
        return 2 * square + 5 * sum(map(float_bytes, layers)) + (own if self.collects_anew else 0)

    def solve(self, rows: Rows, hessian: Tensor, factor: Factor) -> tuple[Tensor, Tensor]:
        """The pruned weight and its mask, both ``[rows, in]``; ``factor`` is of a multiple of ``hessian``."""
        raise TypeError(f"{type(self).__name__} does not define solve")

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            if layers:
                anew = self.collects_anew
                collected = block.collect(layers, self.statistics) if anew else block.statistics
                self._apply_group(block, layers, collected[layers[0].name])

    def _apply_group(self, block: Block, layers: list[Linear], inputs: Inputs) -> None:
        gram = inputs["gram"]
        factor = factorize(gram, self.damping)
        if factor is None:
            for linear in layers:
                self._fall_back(block, linear, gram)
            return
        target = torch.cat([block.weight(linear) for linear in layers])
        if self.correction:
            channels = torch.arange(len(gram), device=gram.device)
            target = corrected(target, inputs["cross_gram"], factor, channels, self.correction)
        earlier = [block.masks.get(linear.name) for linear in layers]
        rows, hessian = Rows(layers, target, earlier, self, self.scope), damped(gram, factor.damping)
        hessian /= hessian.diagonal().mean()  # its size does not matter, and products of it might overflow
        weight, mask = self.solve(rows, hessian, factor)
        weight = fit_support(target, hessian, mask, weight, self.fit_steps)
        parts = zip(layers, *map(rows.split, (weight, mask, target)), strict=True)
        for linear, pruned, kept, wanted in parts:
            block.masks[linear.name] = kept.clone()
            block.set_weight(linear, pruned.clone())
            error = output_error(block.weight(linear) - wanted, wanted, gram)
            self._record(block, linear, error, "output", factor.damping)

    def _record(self, block: Block, linear: Linear, error: float, kind: str, damping: float | None) -> None:
        status, detail = "ok", ""
        if damping is None:
            status = "fallback-magnitude"
            detail = f"the Gram is not positive definite even with damping {MAX_DAMPING:g}"
        elif damping > self.damping:
            status, detail = "damped", f"damping {damping:g} instead of {self.damping:g}"
        step = type(self).__name__.lower()
        block.statuses.append(LayerStatus(linear.name, step, self.label, status, error, kind, detail))

    def _fall_back(self, block: Block, linear: Linear, gram: Tensor) -> None:
        weight = block.weight(linear)
        change = self.prune(block, linear, weight.abs(), self.scope)
        finite = all_finite(gram)
        error = output_error(change, weight, gram) if finite else weight_error(change, weight)
        self._record(block, linear, error, "output" if finite else "weight", None)
