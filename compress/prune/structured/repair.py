"""What is left of a linear when some of its inputs are gone: the weight (and bias) whose output is closest.

Least squares in closed form on the Gram of the calibration inputs. With K the kept and P the pruned columns
of ``W [out, in]``, ``E‖W x − W' x_K‖²`` is least at ``W' = W_K + W_P G_PK G_KK⁻¹``; the damping holds
``W'`` to ``W_K`` where the inputs tell little. A linear with a bias is fitted with it: then means are taken
off first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...solve.damped_cholesky import damp_until_factored


@dataclass(frozen=True)
class Repaired:
    """``weight [out, kept]``, ``bias [out]`` or None; the share of the mean diagonal that had to be added, or
    None where the Gram does not factor and nothing was repaired.
    """

    weight: Tensor
    bias: Tensor | None
    damping: float | None


def least_squares(
    weight: Tensor,
    bias: Tensor | None,
    gram: Tensor,
    mean: Tensor | None,
    kept: Tensor,
    damping: float,
    gap: Tensor | None = None,
    shift: Tensor | None = None,
) -> Repaired:
    """The repaired linear of ``weight [out, in]`` on its columns ``kept``.

    ``gram [in, in]`` and ``mean [in]`` are of the inputs; the mean is needed for a ``bias [out]``. Where
    another output ``y`` is wanted than the linear's own, ``gap [out, in]`` is ``E[(y − W x − b) xᵀ]`` and,
    for a bias, ``shift [out]`` is ``E[y − W x − b]``.
    """
    centred = gram if bias is None or mean is None else gram - torch.outer(mean, mean)
    pruned = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    pruned[kept] = False
    wanted = weight[:, pruned] @ centred[pruned][:, kept]
    if gap is not None:
        wanted = wanted + gap[:, kept]
        if bias is not None and mean is not None and shift is not None:
            wanted -= torch.outer(shift, mean[kept])
    square = centred[kept][:, kept]
    factor, used = damp_until_factored(square, damping)
    if factor is None:
        return Repaired(weight[:, kept], bias, None)
    change = torch.cholesky_solve(wanted.T, factor).T
    if bias is not None and mean is not None:
        bias = bias + weight[:, pruned] @ mean[pruned] - change @ mean[kept]
        bias = bias if shift is None else bias + shift
    return Repaired(weight[:, kept] + change, bias, used)


def bias_only(weight: Tensor, bias: Tensor | None, mean: Tensor, kept: Tensor) -> Tensor | None:
    """The bias that keeps the mean output when only the columns ``kept`` of ``weight`` stay as they are."""
    if bias is None:
        return None
    pruned = torch.ones_like(mean, dtype=torch.bool)
    pruned[kept] = False
    return bias + weight[:, pruned] @ mean[pruned]
