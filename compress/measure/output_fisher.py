"""The Fisher information of outputs: what an error there costs the whole model, from one backward pass.

An error ``Δh`` of a token's hidden state costs about ``½ Δhᵀ E[d dᵀ] Δh`` nats of KL, with ``d`` the gradient
there of the loss of :mod:`.fisher`:

- of what leaves a block the whole matrix is taken, where BRECQ (Li et al. 2021, arXiv 2102.05426) takes the
  diagonal. A norm divides a large state by its size before anyone reads it, so that gradients there are
  smaller: the mean is that of ``|h|² d dᵀ``, for errors in units of ``|h|``.
- of a linear the diagonal beside the Gram of its inputs, the two taken as independent (as in Martens & Grosse
  2015, arXiv 1503.05671): ``½ Σ_o E[d_o²] E[Δy_o²]``. A model-wide choice of widths goes by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import CalibrationError
from .fisher import FisherPass, TakeGradient

# Share of the mean diagonal that is added to it: no direction is free.
_DAMPING = 0.01


class _OuterProducts:
    """Adds up ``|h|² d dᵀ`` over the tokens that leave a block."""

    at_input = False

    def __init__(self, width: int, device: torch.device) -> None:
        self.total = torch.zeros(width, width, device=device)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        size = outputs.to(torch.float32).norm(dim=-1, keepdim=True)

        def add(gradient: Tensor) -> None:
            rows = gradient.to(torch.float32) * size
            self.total.addmm_(rows.T, rows)

        return add


def output_fisher(run: FisherPass) -> dict[str, Tensor]:
    """By block prefix, ``[hidden, hidden]`` float32 on the CPU, symmetric and positive definite, with a mean
    diagonal of 1: an error that is the same in all directions counts as its squared size.

    Raises:
        CalibrationError: the model turns every micro-batch into NaN or infinity, or a gradient; names the
            block.
    """
    width = run.anatomy.hidden_size
    sums = {block.prefix: _OuterProducts(width, run.device) for block in run.anatomy.blocks}
    run.run("measuring blocks' outputs", sums)
    return {prefix: _scaled(found.total.cpu(), prefix) for prefix, found in sums.items()}


def _scaled(total: Tensor, prefix: str) -> Tensor:
    if not bool(torch.isfinite(total).all()):
        raise CalibrationError(
            f"gradients at the output of {prefix} are not finite",
            fix="measure without them (distance: relative), or calibrate on other text",
        )
    mean, identity = total.diag().mean(), torch.eye(len(total))
    if mean == 0:  # nothing that leaves the block is read: all errors are alike
        return identity
    return (total / mean + _DAMPING * identity) / (1 + _DAMPING)


@dataclass(frozen=True)
class InputGram:
    """``gram [in, in]`` of a linear's inputs; ``output_fisher [out]``: damage for each unit of squared error
    of an output.
    """

    gram: Tensor
    output_fisher: Tensor


class _GramAndSquares:
    """Adds up ``x xᵀ`` of the real inputs and ``d²`` at the outputs of a linear."""

    at_input = False

    def __init__(self, linear: nn.Module) -> None:
        weight = linear.get_parameter("weight")
        self.gram = torch.zeros(weight.shape[1], weight.shape[1], device=weight.device)
        self.squares = torch.zeros(weight.shape[0], device=weight.device)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        rows = inputs.to(torch.float32)[real]
        self.gram.addmm_(rows.T, rows)

        def add(gradient: Tensor) -> None:
            self.squares += gradient.to(torch.float32).square().sum(0)

        return add


def input_grams(run: FisherPass, names: Sequence[str]) -> dict[str, InputGram]:
    """Both for each of the linears ``names``; padding does not count."""
    sums = {name: _GramAndSquares(run.submodule(name)) for name in names}
    scale = run.run("measuring layers", sums)
    tokens = sum(batch.tokens for batch in run.micro_batches)
    return {name: InputGram(found.gram / tokens, found.squares * scale) for name, found in sums.items()}
