"""What the model loses without a weight, to second order: the diagonal of the Fisher information, one
backward pass for all weights.

For inputs ``x`` of a linear and gradients ``d`` of ``−log p(y)`` at its outputs, ``y`` drawn from the model
itself, setting ``w_oi`` to zero costs about ``½ w_oi² E[d_o² x_i²]`` nats of KL (LeCun et al. 1989,
"Optimal Brain Damage", with the Fisher information in the place of the Hessian as in Theis et al. 2018,
arXiv 1801.05787).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...terminal import Progress
from ..model.anatomy import Anatomy
from ..model.module_names import module_name
from ..text.micro_batches import MicroBatch
from .fisher import fisher_pass
from .precision import Precision


class _Watch:
    """Adds up ``d_o² x_i²`` over the tokens that go through a linear, ``[out, in]``."""

    def __init__(self, linear: nn.Module) -> None:
        self.total = torch.zeros_like(linear.get_parameter("weight"), dtype=torch.float32)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows = inputs[0].detach().flatten(0, -2).to(torch.float32).square()

        def add(gradient: Tensor) -> None:
            self.total.addmm_(gradient.flatten(0, -2).to(torch.float32).square().T, rows)

        output.register_hook(add)  # type: ignore[no-untyped-call]


def weight_losses(
    model: nn.Module,
    anatomy: Anatomy,
    names: Sequence[str],
    micro_batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Progress,
    *,
    precision: Precision = "auto",
    seed: int = 0,
) -> dict[str, Tensor]:
    """By linear: the estimated damage a token without each weight ``[out, in]``, in nats of KL, or squared
    relative distance of an encoder.
    """
    linears = {name: model.get_submodule(module_name(anatomy, name)) for name in names}
    watches = {name: _Watch(linear) for name, linear in linears.items()}
    handles: list[Any] = [linears[name].register_forward_hook(watch) for name, watch in watches.items()]
    share = fisher_pass(
        model, anatomy, micro_batches, device, progress, "measuring weights", precision=precision, seed=seed
    )
    for handle in handles:
        handle.remove()
    return {
        name: watch.total.mul_(linears[name].get_parameter("weight").detach().square()).mul_(share)
        for name, watch in watches.items()
    }
