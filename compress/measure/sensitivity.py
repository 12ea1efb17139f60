"""What rounding each layer costs the whole model, estimated from gradients: one backward pass for all layers.

To second order, a small change of one layer moves the output distribution by ``KL ≈ ½ E⟨∇ log p(y), ΔW⟩²``
with ``y`` drawn from the model itself: the Fisher metric (Martens 2014, arXiv 1412.1193; for bit allocation
Dong et al. 2019, arXiv 1905.03696). The inner product is ``Σ_t d_tᵀ ΔW x_t`` over the tokens ``t`` of a layer
with inputs ``x`` and gradients ``d`` at its output; as an estimate of little variance the terms are squared
one by one. For an encoder the random direction of a Gaussian takes the place of ``∇ log p(y)``, which gives
the squared relative distance of the hidden states instead of the KL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..model.anatomy import module_name
from ..numbers.qtensor import QTensor
from .fisher import FisherPass


class SensitivityProbe(torch.autograd.Function):
    """A product that, on the way back, adds up what each of some other weights would have changed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, others: list[QTensor], costs: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.others, ctx.costs = others, costs
        return rows @ weight.to(rows.dtype).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, weight = ctx.saved_tensors
        for index, other in enumerate(ctx.others):
            change = (other.dequantize() - weight).to(rows.dtype)
            ctx.costs[index] += (gradient * (rows @ change.T)).sum(-1).to(torch.float32).square().sum()
        return gradient @ weight.to(gradient.dtype), None, None, None


class ProbedLinear(nn.Module):
    """A linear in whose place ``others`` might stand; ``costs [others]`` is the sum over all tokens."""

    def __init__(self, linear: nn.Module, others: list[QTensor]) -> None:
        super().__init__()
        self.linear, self.others = linear, others
        self.costs = torch.zeros(len(others), device=linear.get_parameter("weight").device)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x.reshape(-1, x.shape[-1])
        weight = self.linear.get_parameter("weight")
        out = SensitivityProbe.apply(rows, weight, self.others, self.costs)
        bias = self.linear.bias
        if bias is not None:
            out = out + bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def sensitivity(run: FisherPass, others: Mapping[str, list[QTensor]]) -> dict[str, list[float]]:
    """By linear: the estimated damage a token (nats of KL, or squared relative distance) of each of
    ``others[name]`` in its place.

    The model is changed: its linears named in ``others`` are wrapped. Micro-batches that it turns into NaN or
    infinity are left out.

    Raises:
        CalibrationError: all of them.
    """
    probed = {}
    for name, candidates in others.items():
        probed[name] = ProbedLinear(run.submodule(name), candidates)
        run.model.set_submodule(module_name(run.anatomy, name), probed[name])
    # No observers: the candidates are multiplied with the very rows of the product, in its precision.
    scale = run.run("measuring layers", {})
    return {name: (scale * module.costs).tolist() for name, module in probed.items()}
