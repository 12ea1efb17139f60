"""Least squares for the scales of a quantized weight, its codes given.

With the codes fixed, a row is linear in its group scales ``s``, and its error under the Gram is a quadratic
of as many unknowns as the row has groups: ``(w − Σ_g s_g c_g) H (…)ᵀ`` is least where ``A s = b`` with
``A_gh = c_g H_gh c_hᵀ`` and ``b_g = c_g (H wᵀ)_g``. All groups are solved together, so that the error of
one may make up for that of another. Rows whose solution cannot be stored, or is no better once rounded,
keep their scales.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..numbers.grid import storable
from ..numbers.qtensor import QTensor
from .damped_cholesky import solve_each

_CHUNK = 1 << 22  # entries of A held at once
_RIDGE = 1e-4  # share of A's diagonal that holds a scale where it is when the data do not tell


def refit(target: Tensor, hessian: Tensor, tensor: QTensor) -> QTensor:
    """``tensor`` with the scales that bring it closest to ``target [out, in]`` under ``hessian [in, in]``."""
    largest = float(tensor.scale.max())
    out_features, in_features = tensor.shape
    groups = tensor.scale.shape[1]
    rows = max(1, min(out_features, _CHUNK // (groups * groups), _CHUNK // in_features))
    scale = torch.cat(
        [
            _solved(target[start : start + rows], hessian, _rows(tensor, start, start + rows), largest)
            for start in range(0, out_features, rows)
        ]
    )
    return replace(tensor, scale=scale)


def _rows(tensor: QTensor, start: int, stop: int) -> QTensor:
    zero_point = None if tensor.zero_point is None else tensor.zero_point[start:stop]
    return QTensor(tensor.scheme, tensor.codes[start:stop], tensor.scale[start:stop], zero_point)


def _solved(target: Tensor, hessian: Tensor, tensor: QTensor, largest: float) -> Tensor:
    """The scales ``[rows, groups]``, row by row the better of the solved and the present ones."""
    steps = _steps(tensor)
    matrix = _quadratic(steps, hessian)
    residual = (target - tensor.dequantize()) @ hessian
    slope = (residual.view_as(steps) * steps).sum(-1)
    change = solve_each(matrix, slope, _RIDGE)
    found = tensor.scale + change
    same_side = found * tensor.scale > 0
    found = torch.where(torch.isfinite(found) & same_side, found, tensor.scale)
    found = storable(found, tensor.scheme, largest)
    change = found - tensor.scale
    # What the objective gains by the change, scales rounded: 2 sᵀ slope − sᵀ A s.
    gain = 2 * (change * slope).sum(-1) - torch.einsum("rg,rgh,rh->r", change, matrix, change)
    better = torch.isfinite(gain) & (gain > 0)
    return torch.where(better.unsqueeze(1), found, tensor.scale)


def _steps(tensor: QTensor) -> Tensor:
    """Codes less zero points ``[rows, groups, size]``, float32."""
    steps = tensor.codes.view(tensor.shape[0], tensor.scale.shape[1], -1).to(torch.float32)
    return steps if tensor.zero_point is None else steps - tensor.zero_point.unsqueeze(-1)


def _quadratic(steps: Tensor, hessian: Tensor) -> Tensor:
    """``A [rows, groups, groups]``."""
    rows, groups, size = steps.shape
    matrix = steps.new_empty(rows, groups, groups)
    for group in range(groups):
        part = steps[:, group] @ hessian[group * size : (group + 1) * size]
        torch.sum(part.view_as(steps) * steps, -1, out=matrix[:, group])
    return matrix
