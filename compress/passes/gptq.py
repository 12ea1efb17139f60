"""GPTQ: quantize one input channel at a time and let the channels not yet quantized absorb the error.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv 2210.17323. With ``H`` the Gram of the layer's inputs and ``H⁻¹ = Uᵀ U`` (U upper triangular),
quantizing channel ``j`` with error ``e = (w_j − q_j) / U_jj`` changes every later channel ``k`` by ``−e ·
U_jk``. Here the columns are worked in blocks, so that the far updates are matrix products, and in the order
of decreasing ``H_jj`` with the groups' grids fixed beforehand (activation order with static groups: no
permutation to store).

Faults are part of the algorithm: a channel that never fired keeps its rounded weights; a Gram that does not
factor is damped ten times stronger, step by step; and a layer that still fails is rounded to nearest and says
so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from ..algorithm import BlockPass, SchemeOption, float_bytes
from ..anatomy import Linear
from ..block import Block, LayerStatus, output_error, weight_error
from ..grid import Search, fit_grid, quantize, round_to_grid
from ..inverse_factor import MAX_DAMPING, Factor, all_finite, factorize
from ..qtensor import QTensor
from ..scheme import Scheme


def quantize_columns(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    group: Tensor,
    mask: Tensor | None,
    factor: Factor,
    scheme: Scheme,
    block: int,
) -> Tensor:
    """Codes ``[in, out]`` int8 by GPTQ's column recursion.

    Every argument is transposed, input channels first and in the order of work: ``weight``, ``mask [in,
    out]``; ``scale``, ``zero [groups, out]`` with ``group [in]`` the group of each channel. ``weight`` is
    overwritten.
    """
    channels = weight.shape[0]
    codes = torch.empty_like(weight, dtype=torch.int8)
    groups = group.tolist()
    for start in range(0, channels, block):
        stop = min(start + block, channels)
        errors = torch.empty_like(weight[start:stop])
        upper = factor.panel(start, stop)
        for j in range(start, stop):
            scale_j = scale[groups[j]]
            zero_j = None if zero is None else zero[groups[j]]
            code = round_to_grid(weight[j], scale_j, zero_j, scheme)
            if mask is not None:
                code = torch.where(mask[j], code, torch.zeros_like(code) if zero_j is None else zero_j)
            codes[j] = code
            value = code if zero_j is None else code - zero_j
            row = upper[j - start, j - start :]
            error = torch.addcmul(weight[j], value, scale_j, value=-1).div_(row[0])
            errors[j - start] = error
            if j + 1 < stop:
                weight[j + 1 : stop].addr_(row[1 : stop - j], error, alpha=-1)
        if stop < channels:
            weight[stop:].addmm_(upper[:, stop - start :].T, errors, alpha=-1)
    return codes


def gptq(
    weight: Tensor,
    gram: Tensor,
    factor: Factor,
    order: Tensor,
    scheme: Scheme,
    *,
    search: Search = "mse",
    mask: Tensor | None = None,
    block: int = 64,
) -> QTensor:
    """Quantize ``weight [out, in]``; ``factor`` is of ``gram[order][:, order]``, ``order [in]`` the order of
    work.
    """
    importance = gram.diagonal().clamp(min=0)
    scale, zero_point = fit_grid(weight, scheme, search, importance if bool((importance > 0).any()) else None)
    group = torch.arange(weight.shape[1], device=weight.device) // (weight.shape[1] // scale.shape[1])
    codes = quantize_columns(
        weight.T[order].contiguous(),
        scale.T.contiguous(),
        None if zero_point is None else zero_point.T.contiguous(),
        group[order],
        None if mask is None else mask.T[order].contiguous(),
        factor,
        scheme,
        block,
    )
    restored = torch.empty_like(codes)
    restored[order] = codes
    zero_codes = None if zero_point is None else zero_point.to(torch.int8)
    return QTensor(scheme, restored.T.contiguous(), scale, zero_codes)


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


class Gptq(BlockPass):
    """Options of ``gptq``."""

    needs = ("gram",)
    scheme: SchemeOption
    search: Search = "mse"
    activation_order: bool = True
    damping: float = Field(
        0.01, gt=0, le=1, description="share of the mean Gram diagonal added before factoring"
    )
    block: int = Field(64, ge=1, description="columns worked between two far updates")

    @property
    def weight_scheme(self) -> Scheme:
        return self.scheme

    def working_bytes(self, layers: Sequence[Linear]) -> int:
        """The factor, the weights in the order of work (and stacked, when there are several) and codes."""
        sizes = [float_bytes(linear) for linear in layers]
        factor = 4 * layers[0].in_features ** 2
        stacked = sum(sizes) if len(sizes) > 1 else 0
        return max(factor + stacked + sum(sizes) * 5 // 4, 3 * max(sizes))

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            if layers:
                self._apply_group(block, layers)

    def _apply_group(self, block: Block, layers: list[Linear]) -> None:
        """Layers that read the same inputs share one factor, and their rows are worked together."""
        gram = block.statistic(layers[0], "gram")
        tensor, damping = self._solve(block, layers, gram)
        self._record(block, layers, tensor, gram, damping)

    def _solve(self, block: Block, layers: list[Linear], gram: Tensor) -> tuple[QTensor, float | None]:
        """The stacked quantized weights and the damping that it took; rounded, and None, when none did."""
        order = torch.arange(gram.shape[0], device=gram.device)
        if self.activation_order:
            order = torch.sort(gram.diagonal().nan_to_num(), descending=True, stable=True).indices
        factor = factorize(gram, self.damping, order)
        weight, mask = _stacked(block, layers)
        if factor is None:
            return quantize(weight, self.scheme, self.search, mask=mask), None
        tensor = gptq(
            weight, gram, factor, order, self.scheme, search=self.search, mask=mask, block=self.block
        )
        return tensor, factor.damping

    def _record(
        self, block: Block, layers: list[Linear], tensor: QTensor, gram: Tensor, damping: float | None
    ) -> None:
        status, detail = "ok", ""
        if damping is None:
            status, detail = (
                "fallback-rtn",
                f"the Gram is not positive definite even with damping {MAX_DAMPING:g}",
            )
        elif damping > self.damping:
            status, detail = "damped", f"damping {damping:g} instead of {self.damping:g}"
        row = 0
        for linear in layers:
            rows = slice(row, row + linear.out_features)
            row += linear.out_features
            zero_point = None if tensor.zero_point is None else tensor.zero_point[rows]
            part = QTensor(tensor.scheme, tensor.codes[rows], tensor.scale[rows], zero_point)
            weight = block.weight(linear)
            change = part.dequantize() - weight
            finite = damping is not None or all_finite(gram)
            error = output_error(change, weight, gram) if finite else weight_error(change, weight)
            block.set_quantized(linear, part)
            kind = "output" if finite else "weight"
            block.statuses.append(
                LayerStatus(linear.name, "gptq", self.scheme.name, status, error, kind, detail)
            )


PASS = Gptq
