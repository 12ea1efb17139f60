"""What the model loses without a unit of a layer's inputs, to first order: one backward pass for all units.

The loss is ``−log p(y)`` of a token drawn from the model itself, so that its squared change is the Fisher
measure of the KL divergence: for inputs ``x`` of a linear and gradients ``d`` there, dropping the unit ``S``
changes it by ``Σ_{j∈S} d_j x_j`` (Molchanov et al. 2019, arXiv 1906.10771). Squares are averaged over tokens.
For an encoder the random direction of :mod:`.fisher` takes the place of the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Adds up ``(Σ_{j∈S} d_j x_j)²`` of each unit over the tokens that go through a linear."""

    def __init__(self, units: int, device: torch.device) -> None:
        self.total = torch.zeros(units, device=device)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0]

        def add(gradient: Tensor) -> None:
            change = (gradient * rows.detach()).to(torch.float32).view(-1, len(self.total), self._size(rows))
            self.total += change.sum(-1).square().sum(0)

        rows.register_hook(add)  # type: ignore[no-untyped-call]

    def _size(self, rows: Tensor) -> int:
        return rows.shape[-1] // len(self.total)


def unit_losses(
    model: nn.Module,
    anatomy: Anatomy,
    units: Mapping[str, int],
    micro_batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Progress,
    *,
    precision: Precision = "auto",
    seed: int = 0,
) -> dict[str, Tensor]:
    """By linear: the estimated damage a token without each of its ``units[name]`` runs of inputs ``[units]``,
    in nats of KL, or squared relative distance.
    """
    watches = {name: _Watch(count, device) for name, count in units.items()}
    handles: list[Any] = [
        model.get_submodule(module_name(anatomy, name)).register_forward_pre_hook(watch)
        for name, watch in watches.items()
    ]
    share = fisher_pass(
        model, anatomy, micro_batches, device, progress, "measuring units", precision=precision, seed=seed
    )
    for handle in handles:
        handle.remove()
    return {name: watch.total.cpu() * share for name, watch in watches.items()}
