"""SparseGPT: prune one input channel at a time and let the channels after it absorb the error.

Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv
2301.00774. With ``H`` the Gram of the layer's inputs and ``H⁻¹ = Uᵀ U`` (U upper triangular), setting ``w_j``
to zero with error ``e = w_j / U_jj`` changes every later channel ``k`` by ``−e · U_jk`` and costs ``e²``. The
channels are worked in blocks: what a block loses is chosen by that cost when the block is reached, an N:M
group when its first channel is, so that the choice sees what was absorbed before.

A Gram that does not factor is damped ten times stronger, step by step; a layer that still fails is pruned by
magnitude and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pydantic import Field
from torch import Tensor

from ..algorithm import float_bytes
from ..anatomy import Linear
from ..block import Block, LayerStatus, output_error, weight_error
from ..inverse_factor import MAX_DAMPING, Factor, all_finite, factorize
from ..pruning import Pruning
from ..sparsity import Scope

# The mask of some columns, ``[columns, out]``, from their costs and the slice of channels they are.
Choose = Callable[[Tensor, slice], Tensor]


def prune_columns(weight: Tensor, factor: Factor, choose: Choose, block: int, group: int) -> Tensor:
    """SparseGPT's recursion; returns the mask ``[in, out]``, True keeps.

    ``weight [in, out]``, input channels first, is overwritten by what is left of it. The mask is chosen for
    ``group`` channels at once; ``group`` divides ``block``, after which the far channels are updated.
    """
    channels = weight.shape[0]
    mask = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, channels, block):
        stop = min(start + block, channels)
        errors = torch.zeros_like(weight[start:stop])
        upper = factor.panel(start, stop)
        for j in range(start, stop):
            if (j - start) % group == 0:
                columns = slice(j, min(j + group, stop))
                pivots = upper.diagonal()[j - start : columns.stop - start]
                mask[columns] = choose((weight[columns] / pivots.unsqueeze(1)).square_(), columns)
            row = upper[j - start, j - start :]
            error = torch.where(mask[j], 0.0, weight[j]).div_(row[0])
            errors[j - start] = error
            weight[j] *= mask[j]
            if j + 1 < stop:
                weight[j + 1 : stop].addr_(row[1 : stop - j], error, alpha=-1)
        if stop < channels:
            weight[stop:].addmm_(upper[:, stop - start :].T, errors, alpha=-1)
    return mask


class SparseGpt(Pruning):
    """Options of ``sparsegpt``."""

    needs = ("gram",)
    scope: Scope = Field("layer", description="whose lowest costs go, within each block of columns")
    damping: float = Field(
        0.01, gt=0, le=1, description="share of the mean Gram diagonal added before factoring"
    )
    block: int = Field(
        128, ge=1, description="columns whose zeros are chosen at once, worked between far updates"
    )

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The factor, the stacked weights twice, masks, and the mask's choice in a block."""
        sizes = [float_bytes(linear) for linear in layers]
        factor = 4 * layers[0].in_features ** 2
        return max(factor + sum(sizes) * 5 // 2, 4 * max(sizes))

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            if layers:
                self._apply_group(block, layers)

    def _apply_group(self, block: Block, layers: list[Linear]) -> None:
        """Layers that read the same inputs share one factor, and their rows are worked together."""
        gram = block.statistic(layers[0], "gram")
        factor = factorize(gram, self.damping)
        if factor is None:
            for linear in layers:
                self._fall_back(block, linear)
            return
        weight = torch.cat([block.weight(linear) for linear in layers]).T.contiguous()
        multiple = self.inputs_multiple
        width = -(-self.block // multiple) * multiple
        group = multiple if self.pattern else width
        mask = prune_columns(weight, factor, self._choice(block, layers), width, group)
        sizes = [linear.out_features for linear in layers]
        parts = zip(layers, torch.split(weight.T, sizes), torch.split(mask.T, sizes), strict=True)
        for linear, pruned, kept in parts:
            self._record(block, linear, pruned.contiguous(), kept.contiguous(), gram, factor.damping)

    def _choice(self, block: Block, layers: list[Linear]) -> Choose:
        """Each layer's own lowest costs among the columns; what was pruned before goes first."""
        sizes = [linear.out_features for linear in layers]

        def choose(cost: Tensor, columns: slice) -> Tensor:
            masks = []
            for linear, part in zip(layers, torch.split(cost.T, sizes), strict=True):
                earlier = block.masks.get(linear.name)
                known = None if earlier is None else earlier[:, columns]
                masks.append(self.keep(linear, part, self.scope, known))
            return torch.cat(masks).T

        return choose

    def _record(
        self, block: Block, linear: Linear, pruned: Tensor, mask: Tensor, gram: Tensor, damping: float
    ) -> None:
        before = block.weight(linear)
        block.masks[linear.name] = mask
        block.set_weight(linear, pruned)
        error = output_error(block.weight(linear) - before, before, gram)
        status, detail = "ok", ""
        if damping > self.damping:
            status, detail = "damped", f"damping {damping:g} instead of {self.damping:g}"
        block.statuses.append(
            LayerStatus(linear.name, "sparsegpt", self.label, status, error, "output", detail)
        )

    def _fall_back(self, block: Block, linear: Linear) -> None:
        weight, gram = block.weight(linear), block.statistic(linear, "gram")
        change = self.prune(block, linear, weight.abs(), self.scope)
        finite = all_finite(gram)
        error = output_error(change, weight, gram) if finite else weight_error(change, weight)
        detail = f"the Gram is not positive definite even with damping {MAX_DAMPING:g}"
        kind = "output" if finite else "weight"
        block.statuses.append(
            LayerStatus(linear.name, "sparsegpt", self.label, "fallback-magnitude", error, kind, detail)
        )


PASS = SparseGpt
