"""What a model-wide choice of widths goes by: for linears, the Gram of their inputs and how much the model
minds an error of each output, from one backward pass.

An error ``Δy`` at the output of a linear costs about ``½ Σ_o E[d_o²] E[Δy_o²]`` nats of KL, with ``d`` the
gradient of ``−log p(y)`` there and ``y`` drawn from the model itself: the diagonal of the Fisher
information, inputs and gradients taken as independent (as in Martens & Grosse 2015, arXiv 1503.05671). For
an encoder the random direction of :mod:`.fisher` takes the place of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...terminal import Progress
from ..model.anatomy import Anatomy
from ..model.module_names import module_name
from ..text.micro_batches import MicroBatch
from .fisher import fisher_pass
from .precision import Precision


@dataclass(frozen=True)
class ReaderGram:
    """``gram [in, in]`` of the inputs; ``minding [out]``: damage for each unit of squared error of an
    output.
    """

    gram: Tensor
    minding: Tensor


class _Watch:
    """Adds up ``x xᵀ`` of the inputs and ``d²`` at the outputs of a linear."""

    def __init__(self, linear: nn.Module) -> None:
        weight = linear.get_parameter("weight")
        self.gram = torch.zeros(weight.shape[1], weight.shape[1], device=weight.device)
        self.minding = torch.zeros(weight.shape[0], device=weight.device)
        self.real: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        rows = inputs[0].detach().flatten(0, -2).to(torch.float32)
        rows = rows if self.real is None else rows[self.real]
        self.gram.addmm_(rows.T, rows)

        def add(gradient: Tensor) -> None:
            self.minding += gradient.flatten(0, -2).to(torch.float32).square().sum(0)

        output.register_hook(add)  # type: ignore[no-untyped-call]


def reader_grams(
    model: nn.Module,
    anatomy: Anatomy,
    names: Sequence[str],
    micro_batches: Sequence[MicroBatch],
    device: torch.device,
    progress: Progress,
    *,
    precision: Precision = "auto",
    seed: int = 0,
) -> dict[str, ReaderGram]:
    """Both for each of the linears ``names``; padding does not count."""
    linears = {name: model.get_submodule(module_name(anatomy, name)) for name in names}
    watches = {name: _Watch(linear) for name, linear in linears.items()}
    handles: list[Any] = [linears[name].register_forward_hook(watch) for name, watch in watches.items()]

    def look_at(batch: MicroBatch) -> None:
        for watch in watches.values():
            watch.real = batch.attention_mask.flatten().bool().to(device)

    share = fisher_pass(
        model,
        anatomy,
        micro_batches,
        device,
        progress,
        "measuring layers",
        precision=precision,
        seed=seed,
        before=look_at,
    )
    for handle in handles:
        handle.remove()
    tokens = sum(batch.tokens for batch in micro_batches)
    return {name: ReaderGram(watch.gram / tokens, watch.minding * share) for name, watch in watches.items()}
