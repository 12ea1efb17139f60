"""GPTQ's recursion: quantize one input channel at a time and let those not yet quantized absorb the error.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv 2210.17323. With ``H`` the Gram of the layer's inputs and ``H⁻¹ = Uᵀ U`` (U upper triangular),
quantizing channel ``j`` with error ``e = (w_j − q_j) / U_jj`` changes every later channel ``k`` by ``−e ·
U_jk``. Here the columns are worked in blocks, so that the far updates are matrix products, and in any order
with the groups' grids fixed beforehand (static groups: no permutation to store).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers.grid import round_to_grid
from ..numbers.number_format import code_type
from ..numbers.qtensor import QTensor
from ..numbers.scheme import Scheme
from .damped_cholesky import InverseFactor


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
) -> QTensor:
    """Quantize ``weight [out, in]`` on the grid ``scale``, ``zero_point [out, groups]``.

    ``factor`` is of the damped Gram with its channels in ``order [in]``, the order of work; weights where
    ``mask`` (True keeps) is False become exactly zero.
    """
    group = torch.arange(weight.shape[1], device=weight.device) // (weight.shape[1] // scale.shape[1])
    codes = _columns(
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
    return QTensor(scheme, restored.T.contiguous().to(code_type(scheme.format)), scale, zero_codes)


def _columns(
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    group: Tensor,
    mask: Tensor | None,
    factor: InverseFactor,
    scheme: Scheme,
    block: int,
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
            if j + 1 < stop:
                weight[j + 1 : stop].addr_(row[1 : stop - j], error, alpha=-1)
        if stop < channels:
            weight[stop:].addmm_(upper[:, stop - start :].T, errors, alpha=-1)
    return codes
