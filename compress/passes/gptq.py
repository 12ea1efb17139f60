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

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from ..algorithm import BlockPass, SchemeOption
from ..anatomy import Linear
from ..block import Block, LayerStatus, output_error, weight_error
from ..grid import Search, fit_grid, quantize, round_to_grid
from ..qtensor import QTensor
from ..scheme import Scheme

MAX_DAMPING = 10.0


@dataclass(frozen=True)
class Factor:
    """``upper``: U with H⁻¹ = Uᵀ U ``[in, in]``; ``damping``: share of the mean diagonal that had to be
    added.
    """

    upper: Tensor
    damping: float


def factorize(gram: Tensor, damping: float) -> Factor | None:
    """The upper Cholesky factor of the inverse of ``gram [in, in]``, or None when no damping up to 10
    suffices.

    With P the reversal, P H P = L Lᵀ gives U = P L⁻¹ P: one factorization and one triangular inverse.
    """
    if not bool(torch.isfinite(gram).all()):
        return None
    diagonal = gram.diagonal()
    mean = float(diagonal.mean())
    if not mean > 0:
        return None
    # linalg on MPS lacks Cholesky; the factor is small, so the host does it there.
    work = gram.cpu() if gram.device.type == "mps" else gram
    dead = work.diagonal() <= 0
    while damping <= MAX_DAMPING:
        damped = work.flip(0, 1)
        damped.diagonal().add_(damping * mean)
        damped.diagonal()[dead.flip(0)] = mean
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            identity = torch.eye(lower.shape[0], device=lower.device)
            upper = torch.linalg.solve_triangular(lower, identity, upper=False, out=damped).flip(0, 1)
            if bool(torch.isfinite(upper).all()) and bool((upper.diagonal() > 0).all()):
                return Factor(upper.to(gram.device), damping)
        damping *= 10
    return None


def quantize_columns(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    mask: Tensor | None,
    upper: Tensor,
    scheme: Scheme,
    block: int,
) -> Tensor:
    """Codes ``[in, out]`` (float, integral) by GPTQ's column recursion.

    Every argument is transposed, input channels first and in the order of work: ``weight``, ``scale``,
    ``zero``, ``mask [in, out]``; ``upper [in, in]``. ``weight`` is overwritten.
    """
    channels = weight.shape[0]
    codes = torch.empty_like(weight)
    for start in range(0, channels, block):
        stop = min(start + block, channels)
        errors = torch.empty_like(weight[start:stop])
        for j in range(start, stop):
            zero_j = None if zero is None else zero[j]
            code = round_to_grid(weight[j], scale[j], zero_j, scheme)
            if mask is not None:
                code = torch.where(mask[j], code, torch.zeros_like(code) if zero_j is None else zero_j)
            codes[j] = code
            value = code if zero_j is None else code - zero_j
            error = torch.addcmul(weight[j], value, scale[j], value=-1).div_(upper[j, j])
            errors[j - start] = error
            if j + 1 < stop:
                weight[j + 1 : stop].addr_(upper[j, j + 1 : stop], error, alpha=-1)
        if stop < channels:
            weight[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
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
    ordered_group = group[order]

    def ordered(values: Tensor) -> Tensor:
        return values.T[ordered_group].contiguous()

    codes = quantize_columns(
        weight.T[order].contiguous(),
        ordered(scale),
        None if zero_point is None else ordered(zero_point),
        None if mask is None else mask.T[order].contiguous(),
        factor.upper,
        scheme,
        block,
    )
    restored = torch.empty_like(codes)
    restored[order] = codes
    zero_codes = None if zero_point is None else zero_point.to(torch.int8)
    return QTensor(scheme, restored.T.contiguous().to(torch.int8), scale, zero_codes)


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

    def apply(self, block: Block) -> None:
        for group in block.anatomy.inputs():
            layers = [linear for linear in group if self.selects(linear)]
            if layers:
                self._apply_group(block, layers)

    def _apply_group(self, block: Block, layers: list[Linear]) -> None:
        """Layers that read the same inputs share one factor, and their rows are worked together."""
        gram = block.statistic(layers[0], "gram")
        order = torch.arange(gram.shape[0], device=gram.device)
        if self.activation_order:
            order = torch.sort(gram.diagonal().nan_to_num(), descending=True, stable=True).indices
        factor = factorize(gram[order][:, order], self.damping)
        weights = [block.weight(linear) for linear in layers]
        masks = [block.masks.get(linear.name) for linear in layers]
        weight = torch.cat(weights)
        mask = None
        if any(m is not None for m in masks):
            kept = [
                torch.ones_like(w, dtype=torch.bool) if m is None else m
                for w, m in zip(weights, masks, strict=True)
            ]
            mask = torch.cat(kept)
        if factor is None:
            tensor = quantize(weight, self.scheme, self.search, mask=mask)
        else:
            tensor = gptq(
                weight, gram, factor, order, self.scheme, search=self.search, mask=mask, block=self.block
            )
        self._record(block, layers, tensor, gram, factor)

    def _record(
        self, block: Block, layers: list[Linear], tensor: QTensor, gram: Tensor, factor: Factor | None
    ) -> None:
        status, detail = "ok", ""
        if factor is None:
            status, detail = (
                "fallback-rtn",
                f"the Gram is not positive definite even with damping {MAX_DAMPING:g}",
            )
        elif factor.damping > self.damping:
            status, detail = "damped", f"damping {factor.damping:g} instead of {self.damping:g}"
        row = 0
        for linear in layers:
            rows = slice(row, row + linear.out_features)
            row += linear.out_features
            zero_point = None if tensor.zero_point is None else tensor.zero_point[rows]
            part = QTensor(tensor.scheme, tensor.codes[rows], tensor.scale[rows], zero_point)
            weight = block.weight(linear)
            change = part.dequantize() - weight
            finite = bool(torch.isfinite(gram).all())
            error = output_error(change, weight, gram) if finite else weight_error(change, weight)
            block.set_quantized(linear, part)
            kind = "output" if finite else "weight"
            block.statuses.append(
                LayerStatus(linear.name, "gptq", self.scheme.name, status, error, kind, detail)
            )


PASS = Gptq
