"""Refinement of a quantized weight: scales refitted and codes moved in turns, each for the other.

Both steps lessen the same objective, the squared error of the layer's outputs under the Gram of its inputs,
and neither can make it larger: it is safe to stop anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..numbers.qtensor import QTensor
from .coordinate_descent import descend
from .scale_refit import refit


def refine(
    target: Tensor, hessian: Tensor, tensor: QTensor, rounds: int, *, mask: Tensor | None = None
) -> QTensor:
    """``tensor`` after up to ``rounds`` rounds; ends early when no code moves.

    ``target [out, in]`` is what it should stand for, under ``hessian [in, in]`` with a positive diagonal;
    weights where ``mask`` (True keeps) is False stay zero.
    """
    for _ in range(rounds):
        before = tensor.codes
        tensor = descend(target, hessian, refit(target, hessian, tensor), mask=mask)
        if torch.equal(tensor.codes, before):
            return tensor
    return refit(target, hessian, tensor) if rounds else tensor
