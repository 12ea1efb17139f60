"""How much a model minds an error of what leaves a block, by direction: one backward pass for all blocks.

An error ``Δh`` of a token's hidden state costs about ``½ Δhᵀ E[d dᵀ] Δh`` nats of KL, with ``d`` the gradient
of ``−log p(y)`` there and ``y`` drawn from the model itself: the Fisher information, of which BRECQ (Li et
al. 2021, arXiv 2102.05426) takes the diagonal. A norm divides a large state by its size before anyone reads
it, so that gradients there are smaller: the mean is that of ``|h|² d dᵀ``, for errors in units of ``|h|``.
For an encoder the random direction of :mod:`.fisher` takes the place of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CalibrationError
from ...terminal import Progress
from ..model.anatomy import Anatomy
from ..model.module_names import module_name
from ..text.micro_batches import MicroBatch
from .fisher import fisher_pass
from .precision import Precision

# Share of the mean diagonal that is added to it: no direction is free.
_DAMPING = 0.01


class _Watch:
    """Adds up ``|h|² d dᵀ`` over the tokens that leave a block."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.total = torch.zeros(width, width, device=device)

    def __call__(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        size = hidden.detach().to(torch.float32).norm(dim=-1, keepdim=True)

        def add(gradient: Tensor) -> None:
            rows = (gradient.to(torch.float32) * size).flatten(0, -2)
            self.total.addmm_(rows.T, rows)

        hidden.register_hook(add)  # type: ignore[no-untyped-call]


def exit_metrics(
    model: nn.Module,
    anatomy: Anatomy,
    micro_batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Progress,
    *,
    precision: Precision = "auto",
    seed: int = 0,
) -> dict[str, Tensor]:
    """By block prefix, ``[hidden, hidden]`` float32 on the CPU, symmetric and positive definite, with a mean
    diagonal of 1: an error that is the same in all directions counts as its squared size.

    Raises:
        CalibrationError: the model turns every micro-batch into NaN or infinity, or a gradient; names the
        block.
    """
    watches = {block.prefix: _Watch(anatomy.hidden_size, device) for block in anatomy.blocks}
    handles: list[Any] = [
        model.get_submodule(module_name(anatomy, prefix)).register_forward_hook(watch)
        for prefix, watch in watches.items()
    ]
    fisher_pass(
        model,
        anatomy,
        micro_batches,
        device,
        progress,
        "measuring blocks' exits",
        precision=precision,
        seed=seed,
    )
    for handle in handles:
        handle.remove()
    return {prefix: _scaled(watch.total.cpu(), prefix) for prefix, watch in watches.items()}


def _scaled(total: Tensor, prefix: str) -> Tensor:
    if not bool(torch.isfinite(total).all()):
        raise CalibrationError(
            f"gradients at the exit of {prefix} are not finite",
            fix="measure without them (distance: relative), or calibrate on other text",
        )
    mean, identity = total.diag().mean(), torch.eye(len(total))
    if mean == 0:  # nothing that leaves the block is read: all errors are alike
        return identity
    return (total / mean + _DAMPING * identity) / (1 + _DAMPING)
