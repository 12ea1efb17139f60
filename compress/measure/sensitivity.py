"""What changes of single layers cost the whole model: one backward sweep for all of them.

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

The Fisher information of outputs: what an error there costs the whole model, from one backward sweep.

An error ``Δh`` of a token's hidden state costs about ``½ Δhᵀ E[d dᵀ] Δh`` nats of KL, with ``d`` the gradient
there of the loss of :mod:`.fisher`:

- of what leaves a block the whole matrix is taken, where BRECQ (Li et al. 2021, arXiv 2102.05426) takes the
  diagonal. A norm divides a large state by its size before anyone reads it, so that gradients there are
  smaller: the mean is that of ``|h|² d dᵀ``, for errors in units of ``|h|``.
- of a linear the diagonal beside the Gram of its inputs, the two taken as independent (as in Martens & Grosse
  2015, arXiv 1503.05671): ``½ Σ_o E[d_o²] E[Δy_o²]``. A model-wide choice of widths goes by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ...errors import CalibrationError
from ..numbers.fake_quant import rounding_of
from ..numbers.qtensor import QTensor
from .fisher import TakeGradient

# Share of the mean diagonal that is added to it: no direction is free.
_DAMPING = 0.01


class ChangeLosses:
    """The damage a token of each of some ``others`` in the place of the ``weight`` of the linear ``module``,
    with its inputs rounded where the other's scheme says so; finds ``[others]``.
    """

    at_input = False

    def __init__(self, module: str, weight: Tensor, others: Sequence[QTensor]) -> None:
        self.module, self.weight, self.others = module, weight, others
        self.total = torch.zeros(len(others), device=weight.device)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        rows = inputs.to(outputs.dtype)  # as the product reads them

        def add(gradient: Tensor) -> None:
            for index, other in enumerate(self.others):
                products = self._change(other, rows).mul_(gradient)
                self.total[index] += products.sum(-1).to(torch.float32).square().sum()

        return add

    def _change(self, other: QTensor, rows: Tensor) -> Tensor:
        """What ``other`` adds to the outputs ``[tokens, out]``."""
        weight = other.dequantize()
        found = rows @ (weight - self.weight).to(rows.dtype).T
        if other.scheme.activations == "token":
            whole = rows.to(torch.float32)
            moved = rounding_of(other.scheme, None)(whole).sub_(whole)
            found += moved.to(rows.dtype) @ weight.to(rows.dtype).T
        return found

    def found(self, tokens: int, scale: float) -> Tensor:
        return self.total * scale


class BatchChangeLosses(ChangeLosses):
    """:class:`ChangeLosses` that keeps micro-batches apart; finds ``[batches, others]``."""

    def __init__(self, module: str, weight: Tensor, others: Sequence[QTensor]) -> None:
        super().__init__(module, weight, others)
        self.parts: list[Tensor] = []

    def next_batch(self) -> None:
        """Begin another sum: an expert may see nothing of a batch, and a block that is repeated all of it
        several times.
        """
        self.total = torch.zeros_like(self.total)
        self.parts.append(self.total)

    def found(self, tokens: int, scale: float) -> Tensor:
        return torch.stack(self.parts) * scale


class UnitLosses:
    """The damage a token without each of so many ``units``, runs of the inputs of the linear ``module``;
    finds ``[units]``.
    """

    at_input = True

    def __init__(self, module: str, units: int) -> None:
        self.module, self.total = module, torch.zeros(units)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        self.total = self.total.to(inputs.device)

        def add(gradient: Tensor) -> None:
            change = (gradient * inputs).to(torch.float32).view(len(inputs), len(self.total), -1)
            self.total += change.sum(-1).square().sum(0)

        return add

    def found(self, tokens: int, scale: float) -> Tensor:
        return self.total * scale


class WeightLosses:
    """The damage a token without the least costly weights of the linear ``module``, ``counts`` of them,
    ascending; finds ``[counts]`` float64.
    """

    at_input = False

    def __init__(self, module: str, weight: Tensor, counts: Sequence[int]) -> None:
        self.module, self.weight, self.counts = module, weight, counts
        self.total = torch.zeros_like(weight, dtype=torch.float32)

    def observe(self, inputs: Tensor, outputs: Tensor, real: Tensor) -> TakeGradient:
        rows = inputs.to(torch.float32).square()

        def add(gradient: Tensor) -> None:
            self.total.addmm_(gradient.to(torch.float32).square().T, rows)

        return add

    def losses(self, scale: float) -> Tensor:
        """The damage a token without each weight alone ``[out, in]``; the sums are used up."""
        return self.total.mul_(self.weight).mul_(self.weight).mul_(scale)

    def found(self, tokens: int, scale: float) -> Tensor:
        least = self.losses(scale).flatten().sort().values
        steps = [least[start:end].sum(dtype=torch.float64) for start, end in pairwise((0, *self.counts))]
        return torch.stack(steps).cumsum(0)


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
