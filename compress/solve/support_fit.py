"""The best weights on a given support: least squares where a mask says which weights may differ from zero.

For each row ``w`` of the wanted weight, ``(q − w) H (q − w)ᵀ`` is lessened over the ``q`` that are zero where
the mask is False, by conjugate gradients with the diagonal of ``H`` as preconditioner, all rows at once (as
the last stage of Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
Language Models", arXiv 2406.07831). A step costs one matrix product, and no step makes the error larger.

"""

from __future__ import annotations

import torch
from torch import Tensor

# A row whose squared residual is this part of what it was is left alone: float32 knows no better.
_ARRIVED = 1e-10


def fit_support(target: Tensor, hessian: Tensor, mask: Tensor, start: Tensor, steps: int) -> Tensor:
    """``start [out, in]`` moved towards the minimum around ``target [out, in]`` where ``mask`` is True.

    ``hessian [in, in]`` is positive definite; ``start`` is zero where ``mask`` is False.
    """
    scale = hessian.diagonal()
    weight = start.clone()
    residual = ((target - weight) @ hessian).mul_(mask)
    step = residual / scale
    power = (residual * step).sum(1, keepdim=True)
    arrived = _ARRIVED * power
    for _ in range(steps):
        image = (step @ hessian).mul_(mask)
        length = _ratio(power, (step * image).sum(1, keepdim=True)) * (power > arrived)
        weight += length * step
        residual -= length * image
        before = power
        power = (residual.square() / scale).sum(1, keepdim=True)
        step = step.mul_(_ratio(power, before)).addcdiv_(residual, scale)
    return weight


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient; zero where there is nothing to divide by."""
    return torch.where(denominator > 0, numerator / denominator, torch.zeros_like(numerator))
