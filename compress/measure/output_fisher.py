"""The Fisher information of outputs: what an error there costs the whole model, from one backward sweep.

An error ``Δh`` of a token's hidden state costs about ``½ Δhᵀ E[d dᵀ] Δh`` nats of KL, with ``d`` the gradient
there of the loss of :mod:`.fisher`:

- of what leaves a block the whole matrix is taken, where BRECQ (Li et al. 2021, arXiv 2102.05426) takes the
  diagonal. A norm divides a large state by its size before anyone reads it, so that gradients there are
  smaller: the mean is that of ``|h|² d dᵀ``, for errors in units of ``|h|``.
- of a linear the diagonal beside the Gram of its inputs, the two taken as independent (as in Martens & Grosse
  2015, arXiv 1503.05671): ``½ Σ_o E[d_o²] E[Δy_o²]``. A model-wide choice of widths goes by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import CalibrationError
from .fisher import TakeGradient

# Share of the mean diagonal that is added to it: no direction is free.
_DAMPING = 0.01


class OutputFisher:
    """Of what leaves the block ``module``: finds ``[hidden, hidden]`` float32, symmetric and positive
    definite, with a mean diagonal of 1: an error that is the same in all directions counts as its squared
    size.
    """

    at_input = False

    def __init__(self, module: str, width: int) -> None:
        self.module, self.total = module, torch.zeros(width, width)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        self.total = self.total.to(outputs.device)
        size = outputs.to(torch.float32).norm(dim=-1, keepdim=True)

        def add(gradient: Tensor) -> None:
            rows = gradient.to(torch.float32) * size
            self.total.addmm_(rows.T, rows)

        return add

    def found(self, tokens: int, scale: float) -> Tensor:
        """As the class says."""
        total = self.total.cpu()
        if not bool(torch.isfinite(total).all()):
            raise CalibrationError(
                f"gradients at the output of {self.module} are not finite",
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


class GramLosses:
    """What ``losses`` makes of the :class:`InputGram` of the linear ``module`` with ``weight``: finds them,
    float64. Padding does not count.
    """

    at_input = False

    def __init__(self, module: str, weight: Tensor, losses: Callable[[InputGram], list[float]]) -> None:
        self.module, self.losses = module, losses
        self.gram = torch.zeros(weight.shape[1], weight.shape[1], device=weight.device)
        self.squares = torch.zeros(weight.shape[0], device=weight.device)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        rows = inputs.to(torch.float32)[real]
        self.gram.addmm_(rows.T, rows)

        def add(gradient: Tensor) -> None:
            self.squares += gradient.to(torch.float32).square().sum(0)

        return add

    def found(self, tokens: int, scale: float) -> Tensor:
        found = self.losses(InputGram(self.gram.div_(tokens), self.squares * scale))
        return torch.tensor(found, dtype=torch.float64)
