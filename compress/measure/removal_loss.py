"""What the model loses without single weights or units of a layer's inputs: one backward pass for all.

For inputs ``x`` of a linear and gradients ``d`` of the loss of :mod:`.fisher`:

- dropping the unit ``S`` of the inputs changes the loss, to first order, by ``Σ_{j∈S} d_j x_j`` with ``d`` at
  the inputs (Molchanov et al. 2019, arXiv 1906.10771); squares are averaged over tokens.
- setting the weight ``w_oi`` to zero costs, to second order, about ``½ w_oi² E[d_o² x_i²]`` with ``d`` at the
  outputs (LeCun et al. 1989, "Optimal Brain Damage", with the Fisher information in the place of the Hessian
  as in Theis et al. 2018, arXiv 1801.05787).

Either is nats of KL a token for a decoder, a squared relative distance for an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .fisher import FisherPass, TakeGradient


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
