"""``GramPruning``: what the passes that prune under the Gram of a layer's inputs have in common.

Layers that read the same inputs are solved together (:mod:`..solve.group_solving`), one above the other. A
pass says which weights stay and what they become; here is what comes before and after it: the target, which
may compensate for the error of earlier layers; the fit of what is left (:mod:`..solve.elimination`); the
status. A Gram that does not factor is damped ten times stronger, step by step; a layer that still fails is
pruned by magnitude and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...terminal.progress import Tick
from ..model.block_anatomy import Linear
from ..pipeline.algorithm import Fixed, float_bytes
from ..pipeline.block import Block, LayerStatus, output_error, weight_error
from ..solve.damped_cholesky import InverseFactor, all_finite, damped, damping_status, factorize
from ..solve.elimination import fit_support
from ..solve.group_solving import DAMPING, GroupSolving, Inputs, corrected
from .unstructured import UnstructuredPruning

FIT_STEPS = 10


@dataclass(frozen=True)
class StackedRows:
    """Layers above one another: ``target [rows, in]``, and for each its rows and what is pruned already."""

    layers: Sequence[Linear]
    target: Tensor
    earlier: Sequence[Tensor | None]
    options: UnstructuredPruning

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """``rows [rows, …]`` by layer."""
        return torch.split(rows, [linear.out_features for linear in self.layers])

    def choose(self, score: Tensor, columns: slice = slice(None)) -> Tensor:
        """The mask of the channels ``columns``: each layer's own lowest ``score [rows, columns]`` go."""
        masks = []
        for linear, part, known in zip(self.layers, self.split(score), self.earlier, strict=True):
            masks.append(
                self.options.keep(linear, part, "layer", None if known is None else known[:, columns])
            )
        return torch.cat(masks)


class GramPruning(GroupSolving, UnstructuredPruning):
    """Options of every such pass."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        "damping": Fixed(DAMPING, "a Gram that does not factor is damped more, step by step"),
        "scope": Fixed("layer", "errors under the Gram compare across the rows of a layer"),
    }

    @property
    def coarse(self) -> bool:
        return True

    @property
    def refit_steps(self) -> int:
        """Steps of the least-squares refit of what is left; 0 for none."""
        return FIT_STEPS

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """Two squares, two more for a correction; five copies of the stacked weights; the statistics where
        they are collected here.
        """
        square = 4 * layers[0].in_features ** 2
        return (
            (2 + 2 * (self.correction > 0)) * square
            + 5 * sum(map(float_bytes, layers))
            + self.statistics_bytes(layers)
        )

    def solve(
        self, rows: StackedRows, hessian: Tensor, factor: InverseFactor, tick: Tick
    ) -> tuple[Tensor, Tensor]:
        """The pruned weight and its mask, both ``[rows, in]``; ``factor`` is of a multiple of ``hessian``.
        ``tick`` receives the multiply-adds that are done.
        """
        raise TypeError(f"{type(self).__name__} does not define solve")

    def solve_group(self, block: Block, layers: list[Linear], inputs: Inputs) -> None:
        gram = inputs["gram"]
        factor = factorize(gram, DAMPING, tick=block.tick)
        if factor is None:
            for linear in layers:
                self._fall_back(block, linear, gram)
            return
        target = torch.cat([block.weight(linear) for linear in layers])
        if self.correction:
            channels = torch.arange(len(gram), device=gram.device)
            target = corrected(target, inputs, factor, channels, self.correction, block.tick)
        earlier = [block.masks.get(linear.name) for linear in layers]
        rows, hessian = StackedRows(layers, target, earlier, self), damped(gram, factor.damping)
        hessian /= hessian.diagonal().mean()  # its size does not matter, and products of it might overflow
        weight, mask = self.solve(rows, hessian, factor, block.tick)
        weight = fit_support(target, hessian, mask, weight, self.refit_steps, block.tick)
        parts = zip(layers, *map(rows.split, (weight, mask, target)), strict=True)
        for linear, pruned, kept, wanted in parts:
            block.masks[linear.name] = kept.clone()
            block.set_weight(linear, pruned.clone())
            error = output_error(block.weight(linear) - wanted, wanted, gram)
            block.tick(wanted.numel() * len(gram))
            self._record(block, linear, error, "output", factor.damping)

    def _record(self, block: Block, linear: Linear, error: float, kind: str, damping: float | None) -> None:
        status, detail = damping_status(DAMPING, damping, "fallback-magnitude")
        step = type(self).__name__.lower()
        block.statuses.append(LayerStatus(linear.name, step, self.label, status, error, kind, detail))

    def _fall_back(self, block: Block, linear: Linear, gram: Tensor) -> None:
        weight = block.weight(linear)
        change = self.prune(block, linear, weight.abs(), "layer")
        finite = all_finite(gram)
        error = output_error(change, weight, gram) if finite else weight_error(change, weight)
        self._record(block, linear, error, "output" if finite else "weight", None)
