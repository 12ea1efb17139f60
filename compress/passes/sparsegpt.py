"""SparseGPT: prune one input channel at a time and let the channels after it absorb the error.

Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv
2301.00774. With ``H`` the Gram of the layer's inputs and ``H⁻¹ = Uᵀ U`` (U upper triangular), setting ``w_j``
to zero with error ``e = w_j / U_jj`` changes every later channel ``k`` by ``−e · U_jk`` and costs ``e²``. The
channels are worked in blocks: what a block loses is chosen by that cost when the block is reached, an N:M
group when its first channel is, so that the choice sees what was absorbed before.

Beyond the paper, what is left is fitted once more with the zeros held (``fit_steps``): the recursion lets a
channel absorb only what was pruned before it.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..pipeline.algorithm import Fixed
from ..prune.gram_pruning import FIT_STEPS, GramPruning, StackedRows
from ..solve.damped_cholesky import InverseFactor

# The mask of some columns, ``[columns, out]``, from their costs and the slice of channels they are.
Choose = Callable[[Tensor, slice], Tensor]


def prune_columns(
    weight: Tensor, factor: InverseFactor, choose: Choose, block: int, group: int, tick: Tick = unseen
) -> Tensor:
    """SparseGPT's recursion; returns the mask ``[in, out]``, True keeps.

    ``weight [in, out]``, input channels first, is overwritten by what is left of it. The mask is chosen for
    ``group`` channels at once; ``group`` divides ``block``, after which the far channels are updated.
    ``tick`` receives the multiply-adds that are done.
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
        tick(errors.numel() * channels)
    return mask


_BLOCK = 128  # columns whose zeros are chosen at once, worked between far updates


class SparseGpt(GramPruning):
    """Options of ``sparsegpt``; ``fit_steps: 0`` is the paper's."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        **GramPruning.fixed,
        "block": Fixed(_BLOCK, "the paper's block size"),
    }
    fit_steps: int = Field(
        FIT_STEPS, ge=0, le=1000, description="steps of the least-squares refit of what is left; 0 for none"
    )

    @property
    def refit_steps(self) -> int:
        return self.fit_steps

    def solve(
        self, rows: StackedRows, hessian: Tensor, factor: InverseFactor, tick: Tick
    ) -> tuple[Tensor, Tensor]:
        multiple = self.inputs_multiple
        width = -(-_BLOCK // multiple) * multiple
        weight = rows.target.T.contiguous()
        mask = prune_columns(
            weight,
            factor,
            lambda cost, columns: rows.choose(cost.T, columns).T,
            width,
            multiple if self.pattern else width,
            tick,
        )
        return weight.T.contiguous(), mask.T.contiguous()


PASS = SparseGpt
