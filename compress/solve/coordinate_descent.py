"""Coordinate descent on codes: each code moved to the best point of its grid, all others given.

Behdin et al. 2023, "QuantEase: Optimization-based Quantization for Language Models", arXiv 2309.01885. The
objective of a row is ``(w − q) H (w − q)ᵀ``, so the best value of channel ``j`` is ``q_j + ((w − q) H)_j /
H_jj`` and the best code is the nearest to it. No step makes the objective larger. Rows are independent and
worked together; the columns go in blocks, so that far updates are matrix products.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..numbers.grid import round_to_grid
from ..numbers.qtensor import QTensor


def descend(
    target: Tensor, hessian: Tensor, tensor: QTensor, *, mask: Tensor | None = None, block: int = 64
) -> QTensor:
    """One sweep over the columns of ``tensor``, towards ``target [out, in]`` under ``hessian [in, in]``.

    ``hessian`` has a positive diagonal. Weights where ``mask`` (True keeps) is False keep their codes.
    """
    size = tensor.codes.shape[1] // tensor.scale.shape[1]
    scale = tensor.scale.T.contiguous()
    zero = None if tensor.zero_point is None else tensor.zero_point.T.to(torch.float32).contiguous()
    values = tensor.dequantize().T.contiguous()
    codes = tensor.codes.T.to(torch.float32 if tensor.scheme.format == "fp8" else torch.int8).contiguous()
    keep = None if mask is None else mask.T.contiguous()
    gradient = hessian @ (target.T - values)
    diagonal = hessian.diagonal().tolist()
    for start in range(0, len(values), block):
        stop = min(start + block, len(values))
        local, moves = gradient[start:stop].clone(), torch.zeros_like(values[start:stop])
        for j in range(start, stop):
            scale_j = scale[j // size]
            zero_j = None if zero is None else zero[j // size]
            best = torch.add(values[j], local[j - start], alpha=1 / diagonal[j])
            code = round_to_grid(best, scale_j, zero_j, tensor.scheme)
            value = (code if zero_j is None else code - zero_j) * scale_j
            move = value.sub_(values[j])
            if keep is not None:
                move *= keep[j]
                code = torch.where(keep[j], code, codes[j].to(code.dtype))
            codes[j] = code
            moves[j - start] = move
            if j + 1 < stop:
                local[j + 1 - start :].addr_(hessian[j, j + 1 : stop], move, alpha=-1)
        gradient.addmm_(hessian[:, start:stop], moves, alpha=-1)
    return replace(tensor, codes=codes.T.contiguous().to(tensor.codes.dtype))
