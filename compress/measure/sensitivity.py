"""What changes of single layers cost the whole model: one backward pass for all of them.

To second order, a small change of one layer moves the output distribution by ``KL ≈ ½ E⟨∇ log p(y), ΔW⟩²``
with ``y`` drawn from the model itself: the Fisher metric (Martens 2014, arXiv 1412.1193; for bit allocation
Dong et al. 2019, arXiv 1905.03696). The inner product is ``Σ_t d_tᵀ ΔW x_t`` over the tokens ``t`` of a layer
with inputs ``x`` and gradients ``d`` at its output; as an estimate of little variance the terms are squared
one by one. Of the loss of :mod:`.fisher` three changes are measured:

- another weight, as rounding gives it, by that product;
- dropping the unit ``S`` of the inputs changes the loss, to first order, by ``Σ_{j∈S} d_j x_j`` with ``d`` at
  the inputs (Molchanov et al. 2019, arXiv 1906.10771); squares are averaged over tokens;
- setting the weight ``w_oi`` to zero costs, to second order, about ``½ w_oi² E[d_o² x_i²]`` (LeCun et al.
  1989, "Optimal Brain Damage", with the Fisher information in the place of the Hessian as in Theis et
  al. 2018, arXiv 1801.05787).

Each is nats of KL a token for a decoder, a squared relative distance of the hidden states for an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..model.anatomy import module_name
from ..numbers.qtensor import QTensor
from .fisher import FisherPass, TakeGradient


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


class _UnitSums:
    """Adds up ``(Σ_{j∈S} d_j x_j)²`` of each unit over the tokens that go through a linear."""

    at_input = True

    def __init__(self, units: int, device: torch.device) -> None:
        self.total = torch.zeros(units, device=device)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        def add(gradient: Tensor) -> None:
            change = (gradient * inputs).to(torch.float32).view(len(inputs), len(self.total), -1)
            self.total += change.sum(-1).square().sum(0)

        return add


class _WeightSums:
    """Adds up ``d_o² x_i²`` over the tokens that go through a linear, ``[out, in]``."""

    at_input = False

    def __init__(self, linear: nn.Module) -> None:
        self.total = torch.zeros_like(linear.get_parameter("weight"), dtype=torch.float32)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        rows = inputs.to(torch.float32).square()

        def add(gradient: Tensor) -> None:
            self.total.addmm_(gradient.to(torch.float32).square().T, rows)

        return add


def unit_losses(run: FisherPass, units: Mapping[str, int]) -> dict[str, Tensor]:
    """By linear: the estimated damage a token without each of its ``units[name]`` runs of inputs, ``[units]``
    on the CPU.
    """
    sums = {name: _UnitSums(count, run.device) for name, count in units.items()}
    scale = run.run("measuring units", sums)
    return {name: found.total.cpu() * scale for name, found in sums.items()}


def weight_losses(run: FisherPass, names: Sequence[str]) -> dict[str, Tensor]:
    """By linear: the estimated damage a token without each weight ``[out, in]``."""
    linears = {name: run.submodule(name) for name in names}
    sums = {name: _WeightSums(linear) for name, linear in linears.items()}
    scale = run.run("measuring weights", sums)
    return {
        name: found.total.mul_(linears[name].get_parameter("weight").detach().square()).mul_(scale)
        for name, found in sums.items()
    }
