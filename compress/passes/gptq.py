"""GPTQ: each layer quantized so that its outputs, not its weights, stay close on the calibration activations.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv 2210.17323: one input channel is quantized at a time, and those not yet quantized absorb its error. With
``H`` the Gram of the layer's inputs and ``H⁻¹ = Uᵀ U`` (U upper triangular), quantizing channel ``j`` with
error ``e = (w_j − q_j) / U_jj`` changes every later channel ``k`` by ``−e · U_jk``. Columns are worked in
blocks, so that the far updates are matrix products, and in the order of decreasing ``H_jj`` with the groups'
grids fixed beforehand. Those are searched under the Hessian: an error of a channel weighs ``H_jj``.
(``U_jj⁻²``, what is left of it once later channels have absorbed their part, neglects the last ones: on
SmolLM2 at three bits it ends at a KL of 0.60, ``H_jj`` at 0.52.) Three options go further:

- ``sequential``: collect the inputs of each group of layers again once those before it in the block are
  quantized: o after q, k and v; gate and up after o; down after gate and up.
- ``correction``: aim at the outputs that the original model has here, not at what the layer itself would give
  on inputs that earlier layers have already changed (:mod:`edgepress.compress.solve.group_solving`). It is
  always sequential: an error that q, k and v compensate must not be compensated by o once more.
- ``refinements``: afterwards, scales refitted and codes moved one after the other under the same objective
  (:mod:`edgepress.compress.solve.refinement`).

Faults are part of the algorithm: a channel that never fired keeps its rounded weights; a Gram that does not
factor is damped ten times stronger, step by step; and a layer that still fails is rounded to nearest and says
so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..model.block_anatomy import Linear
from ..numbers.block_types import refuse_without_zero
from ..numbers.fake_quant import input_scale_of
from ..numbers.grid import fit_grid, quantize
from ..numbers.input_rotation import rotated, rotated_gram
from ..numbers.qtensor import QTensor, row_tiles
from ..numbers.scheme import EverySchemeOption, Scheme
from ..pipeline.advance import FORWARD, Work
from ..pipeline.algorithm import Fixed, float_bytes
from ..pipeline.block import Block
from ..solve.column_recursion import quantize_blocks_in_order, quantize_in_order
from ..solve.damped_cholesky import all_finite, damped, damping_status, factorize
from ..solve.group_solving import DAMPING, GroupSolving, Inputs, corrected
from ..solve.refinement import refine
from ..solve.word_recursion import quantize_words

_BLOCK = 64  # columns worked between two far updates: with their errors they fit the second-level cache


class Gptq(GroupSolving):
    """Options of ``gptq``."""

    fixed: ClassVar[Mapping[str, Fixed]] = {
        "search": Fixed("mse", "grids are searched under the Hessian, which plain ranges ignore"),
        "activation_order": Fixed(True, "grids are fixed beforehand, so that the better order costs nothing"),
        "block": Fixed(_BLOCK, "it decides on speed, and on the result in the last bits alone"),
    }
    scheme: EverySchemeOption
    damping: float = Field(
        DAMPING, gt=0, le=1, description="fraction of the mean Gram diagonal that is added before factoring"
    )
    refinements: int = Field(
        0, ge=0, le=100, description="rounds of scale refit and coordinate descent on the codes afterwards"
    )

    @model_validator(mode="after")
    def _codes_that_move(self) -> Self:
        if self.refinements and (self.scheme.of_gguf or self.scheme.of_trellis):
            raise ValueError(f"refinements do not know the codes of {self.scheme.name}")
        return self

    @property
    def statistics(self) -> tuple[str, ...]:
        return (*super().statistics, *(("absmax",) if self.scheme.calibrated else ()))

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    @property
    def recursion_damping(self) -> float:
        return self.damping

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The factor (or the damped Gram), what a correction finds, the weights in the order of work (and
        stacked, when there are several, and corrected) and codes; the statistics where collected here.
        """
        sizes = [float_bytes(linear) for linear in layers]
        square = 4 * layers[0].in_features ** 2
        copies = (len(sizes) > 1) + (self.correction > 0) + 2 * (self.refinements > 0)
        copies += self.corrects_stream(layers)
        copies += 2 * self.scheme.of_trellis
        squares = 1 + 2 * (self.correction > 0) + 2 * self.scheme.of_trellis
        work = max(squares * square + (copies + 1) * sum(sizes) + sum(sizes) // 4, 3 * max(sizes))
        return work + self.statistics_bytes(layers)

    def work(self, groups: Sequence[Sequence[Linear]], tokens: int, batch_tokens: int) -> Work:
        """Also four products under the Gram for each refinement, and more forward passes when sequential."""
        total, products = super().work(groups, tokens, batch_tokens), 0.0
        for group in groups:
            wide, rows = group[0].in_features, sum(linear.out_features for linear in group)
            products += 4 * self.refinements * rows * wide**2
            products += (self.correction > 0) * tokens * (1.5 * wide**2 + FORWARD * rows * wide)
            products += (self.correction > 0) * 2 * (wide + rows) * wide**2
            products += self.corrects_stream(group) * rows * wide * (tokens + 2 * wide)
            products += self.collects_again * FORWARD * tokens * rows * wide
            total += Work(columns=self.refinements * wide, entries=self.refinements * rows * wide)
        return total + Work(products)

    def solve_group(self, block: Block, layers: list[Linear], inputs: Inputs) -> None:
        """Layers that read the same inputs share one factor, and their rows are worked together."""
        weight, mask = _stacked(block, layers)
        if mask is not None:
            refuse_without_zero(layers[0].name, self.scheme)
        if self.scheme.of_trellis:
            return self._solve_words(block, layers, weight, inputs)
        gram = inputs["gram"]
        order = torch.sort(gram.diagonal().nan_to_num(), descending=True, stable=True).indices
        factor = factorize(gram, self.damping, order, block.tick)
        if factor is None:
            tensor = quantize(weight, self.scheme, "mse", mask=mask, tick=block.tick_rounded)
            return self._record(block, layers, self._whole(tensor, inputs), weight, gram, None)
        if self.correction:
            weight = corrected(weight, inputs, factor, order, self.correction, block.tick)
            weight = weight if mask is None else weight * mask
        power = gram.diagonal().clamp(min=0)
        left = None if self.refinements else weight.new_zeros(len(weight))
        more: dict[str, Any] = {"mask": mask, "block": _BLOCK, "left": left, "tick": block.tick}
        if self.scheme.of_gguf:
            grid = quantize(weight, self.scheme, importance=power, tick=block.tick_rounded)
            tensor = quantize_blocks_in_order(weight, grid, factor, order, **more)
        else:
            ends = fit_grid(weight, self.scheme, "mse", power, tick=block.tick_rounded)
            tensor = quantize_in_order(weight, *ends, factor, order, self.scheme, **more)
        damping = factor.damping
        del factor
        if self.refinements:
            hessian = damped(gram, damping)
            tensor = refine(weight, hessian, tensor, self.refinements, mask=mask, tick=block.tick)
        if left is not None:
            left -= _of_damping(tensor, weight, gram.diagonal(), damping)
        return self._record(block, layers, self._whole(tensor, inputs), weight, gram, damping, left)

    def _solve_words(self, block: Block, layers: list[Linear], weight: Tensor, inputs: Inputs) -> None:
        """As :meth:`solve_group` in the basis of the rotated inputs, whose ``weight`` is that of all
        ``layers``. Words are of one layer.
        """
        gram = inputs["gram"]
        turned = rotated_gram(gram)
        if self.correction:
            order = torch.arange(len(gram), device=gram.device)
            plain = factorize(gram, self.damping, order, block.tick)
            if plain is not None:
                weight = corrected(weight, inputs, plain, order, self.correction, block.tick)
            del plain
        factor = factorize(turned, self.damping, tick=block.tick)
        damping, diagonal, row = None if factor is None else factor.damping, turned.diagonal(), 0
        for linear in layers:
            part, left = weight[row : row + linear.out_features], None
            row += linear.out_features
            if factor is None:
                found = quantize(part, self.scheme, tick=block.tick_rounded)
            else:
                left = part.new_zeros(len(part))
                found = quantize_words(rotated(part), self.scheme, factor, left, block.tick)
                left -= _of_damping(found, part, diagonal, factor.damping)
            self._record(block, [linear], found, part, gram, damping, left)

    def _whole(self, tensor: QTensor, inputs: Inputs) -> QTensor:
        """``tensor`` with what its scheme says of the activations."""
        if not self.scheme.calibrated:
            return tensor
        return replace(tensor, input_scale=input_scale_of(self.scheme, inputs["absmax"]))

    def _record(
        self,
        block: Block,
        layers: list[Linear],
        tensor: QTensor,
        target: Tensor,
        gram: Tensor,
        damping: float | None,
        left: Tensor | None = None,
    ) -> None:
        """Set the quantized layers; the error reported is against ``target``, what they were to stand for,
        and ``left [out]`` is that of each row's outputs where it is known.
        """
        status, detail = damping_status(self.damping, damping, "fallback-rtn")
        finite = damping is not None or all_finite(gram)
        row = 0
        for linear in layers:
            rows = torch.arange(row, row + linear.out_features, device=target.device)
            row += linear.out_features
            known, damage = gram if finite else None, None if left is None else float(left[rows].sum())
            part, wanted = tensor.rows(rows), target[rows]
            block.quantize(linear, part, "gptq", status, detail, wanted=wanted, gram=known, damage=damage)


def _of_damping(tensor: QTensor, target: Tensor, diagonal: Tensor, damping: float) -> Tensor:
    """What of each row's squared error ``[out]`` under the damped Gram comes from the damping, which is not
    in the outputs. ``diagonal [in]`` is the Gram's.
    """
    mean = diagonal.mean()
    added = torch.where(diagonal > 0, damping * mean, mean - diagonal)
    parts = [(tensor.dequantize(rows=rows) - target[rows]).square_() @ added for rows in row_tiles(target)]
    return torch.cat(parts)


def _stacked(block: Block, layers: list[Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and masks of ``layers`` above one another; no mask when none of them has one."""
    weights = [block.weight(linear) for linear in layers]
    masks = [block.masks.get(linear.name) for linear in layers]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    if all(mask is None for mask in masks):
        return weight, None
    kept = [
        torch.ones_like(w, dtype=torch.bool) if m is None else m for w, m in zip(weights, masks, strict=True)
    ]
    return weight, torch.cat(kept)


PASS = Gptq
