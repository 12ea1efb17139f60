"""Refinement of a quantized weight: scales refitted and codes moved one after the other, round by round.

Both steps lessen the same objective, the squared error of the layer's outputs under the Gram ``H`` of its
inputs, ``(w − q) H (w − q)ᵀ`` for each row, and neither can make it larger: it is safe to stop anywhere.

- Coordinate descent moves each code to the best point of its grid, all others given (Behdin et al. 2023,
  "QuantEase: Optimization-based Quantization for Language Models", arXiv 2309.01885). The best value of
  channel ``j`` is ``q_j + ((w − q) H)_j / H_jj`` and the best code is the nearest to it. Rows are independent
  and worked together; the columns go in blocks, so that far updates are matrix products.
- The refit of the scales is least squares with the codes given: a row is linear in its group scales ``s``,
  and its error is least where ``A s = b`` with ``A_gh = c_g H_gh c_hᵀ`` and ``b_g = c_g (H wᵀ)_g``. All
  groups are solved together, so that the error of one may compensate that of another. Rows whose solution
  cannot be stored, or is no better once rounded, keep their scales.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ...terminal.progress import Tick, unseen
from ..numbers.grid import round_to_grid, storable
from ..numbers.qtensor import QTensor
from .damped_cholesky import solve_each

Short = Callable[[Tensor], Tensor]  # the nearest to scales that are of the kind wanted

_CHUNK = 1 << 22  # entries of A held at once
_RIDGE = 1e-4  # fraction of A's diagonal that holds a scale where it is when the data do not tell


def refine(
    target: Tensor,
    hessian: Tensor,
    tensor: QTensor,
    rounds: int,
    *,
    mask: Tensor | None = None,
    short: Short | None = None,
    tick: Tick = unseen,
) -> QTensor:
    """``tensor`` after up to ``rounds`` rounds; ends early when no code moves. ``tick`` receives the
    multiply-adds that are done.

    ``target [out, in]`` is what it should stand for, under ``hessian [in, in]`` with a positive diagonal;
    weights where ``mask`` (True keeps) is False stay zero. ``short`` as in :func:`refit`.
    """
    for _ in range(rounds):
        before = tensor.codes
        tensor = refit(target, hessian, tensor, short, tick)
        tensor = descend(target, hessian, tensor, mask=mask, tick=tick)
        if torch.equal(tensor.codes, before):
            return tensor
    return refit(target, hessian, tensor, short) if rounds else tensor


def descend(
    target: Tensor,
    hessian: Tensor,
    tensor: QTensor,
    *,
    mask: Tensor | None = None,
    block: int = 64,
    tick: Tick = unseen,
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
        tick(2 * moves.numel() * len(values))
    return replace(tensor, codes=codes.T.contiguous().to(tensor.codes.dtype))


def refit(
    target: Tensor, hessian: Tensor, tensor: QTensor, short: Short | None = None, tick: Tick = unseen
) -> QTensor:
    """``tensor`` with the scales that bring it closest to ``target [out, in]`` under ``hessian [in, in]``,
    of those that can be stored; where ``short`` says which these are, of those.
    """
    largest = float(tensor.scale.max())
    out_features, in_features = tensor.shape
    groups = tensor.scale.shape[1]
    rows = max(1, min(out_features, _CHUNK // (groups * groups), _CHUNK // in_features))
    parts = []
    for start in range(0, out_features, rows):
        part = target[start : start + rows]
        parts.append(_solved(part, hessian, _rows(tensor, start, start + rows), largest, short))
        tick(2 * part.numel() * in_features)
    return replace(tensor, scale=torch.cat(parts))


def _rows(tensor: QTensor, start: int, stop: int) -> QTensor:
    zero_point = None if tensor.zero_point is None else tensor.zero_point[start:stop]
    return QTensor(tensor.scheme, tensor.codes[start:stop], tensor.scale[start:stop], zero_point)


def _solved(target: Tensor, hessian: Tensor, tensor: QTensor, largest: float, short: Short | None) -> Tensor:
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
    found = found if short is None else short(found)
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
