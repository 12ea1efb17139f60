"""GPTQ's recursion over the columns of a weight: each is quantized, and all later ones absorb its error.

With ``H`` the damped Gram of the inputs and ``H⁻¹ = Uᵀ U``, the errors ``e = (w_j − q_j) / U_jj`` of a row
satisfy ``ΔW = e U``, so that its squared output error ``ΔW H ΔWᵀ`` is ``Σ e²``: known without a product.
A column changes only a few behind it by itself, since a vector times a row is slow; products of a few
columns change the rest of a block that fits the cache, and those of a block all columns behind it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..numbers.grid import round_to_grid
from ..numbers.qtensor import QTensor, code_type
from ..numbers.scheme import Scheme
from ..pipeline.advance import Work
from .damped_cholesky import InverseFactor

_NEAR = 16  # columns that a single one changes at once


def quantize_in_order(
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    factor: InverseFactor,
    order: Tensor,
    scheme: Scheme,
    *,
    mask: Tensor | None = None,
    block: int = 64,
    left: Tensor | None = None,
    tick: Tick = unseen,
) -> QTensor:
    """Quantize ``weight [out, in]`` on the grid ``scale``, ``zero_point [out, groups]``.

    ``factor`` is of the damped Gram with its channels in ``order [in]``, the order of work; weights where
    ``mask`` (True keeps) is False become exactly zero. ``left [out]`` is added the squared error of each
    row's outputs under the damped Gram. ``tick`` receives the multiply-adds that are done.
    """
    group = torch.arange(weight.shape[1], device=weight.device) // (weight.shape[1] // scale.shape[1])
    codes = _columns(
        _in_order(weight, order),
        scale.T.contiguous(),
        None if zero_point is None else zero_point.T.contiguous(),
        group[order],
        None if mask is None else mask.T[order].contiguous(),
        factor,
        scheme,
        block,
        left,
        tick,
    )
    restored = torch.empty_like(codes)
    restored[order] = codes
    zero_codes = None if zero_point is None else zero_point.to(torch.int8)
    return QTensor(scheme, restored.T.contiguous().to(code_type(scheme.format)), scale, zero_codes)


def quantize_blocks_in_order(
    weight: Tensor,
    grid: QTensor,
    factor: InverseFactor,
    order: Tensor,
    *,
    mask: Tensor | None = None,
    block: int = 64,
    left: Tensor | None = None,
    tick: Tick = unseen,
) -> QTensor:
    """Quantize ``weight [out, in]`` with the scales and minima of ``grid``, in a type of GGUF; the other
    arguments as in :func:`quantize_in_order`.
    """
    scale = torch.where(grid.scale == 0, torch.ones_like(grid.scale), grid.scale)
    shifted = weight
    if grid.minimum is not None:
        shifted = weight + grid.minimum.repeat_interleave(weight.shape[1] // scale.shape[1], 1)
    found = quantize_in_order(
        shifted, scale, None, factor, order, grid.scheme, mask=mask, block=block, left=left, tick=tick
    )
    return replace(grid, codes=found.codes)


def _in_order(weight: Tensor, order: Tensor, tile: int = 128) -> Tensor:
    """``weight.T[order]`` ``[in, out]`` of ``weight [out, in]``, so many rows at a time: whole rows of the
    transposed tile are moved, not single numbers.
    """
    result = weight.new_empty(weight.shape[1], weight.shape[0])
    for start in range(0, len(weight), tile):
        result[:, start : start + tile] = weight[start : start + tile].T.contiguous()[order]
    return result


def _columns(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    group: Tensor,
    mask: Tensor | None,
    factor: InverseFactor,
    scheme: Scheme,
    block: int,
    left: Tensor | None,
    tick: Tick,
) -> Tensor:
    """Codes ``[in, out]``, int8 or the float points of FP8.

    Every argument is transposed, input channels first and in the order of work: ``weight``, ``mask [in,
    out]``; ``scale``, ``zero [groups, out]`` with ``group [in]`` the group of each channel. ``weight`` is
    overwritten.
    """
    channels = weight.shape[0]
    codes = torch.empty_like(weight, dtype=torch.float32 if scheme.format == "fp8" else torch.int8)
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
            near = min(j - (j - start) % _NEAR + _NEAR, stop)
            weight[j + 1 : near].addr_(row[1 : near - j], error, alpha=-1)
            if j + 1 == near and near < stop:
                done = slice(max(near - _NEAR, start) - start, near - start)
                weight[near:stop].addmm_(upper[done, near - start : stop - start].T, errors[done], alpha=-1)
        if left is not None:
            left += errors.square().sum(0)
        if stop < channels:
            weight[stop:].addmm_(upper[:, stop - start :].T, errors, alpha=-1)
        tick(Work(errors.numel() * channels / 2, entries=errors.numel()).multiplications)
    return codes
