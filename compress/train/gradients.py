"""``Gradients``: those of a step, summed over all processes and clipped, on what the optimizer moves.

Of a parameter that is spread over processes the optimizer moves the own rows: torch has summed their gradient
already, and the norm is that of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..pipeline.processes import Processes
from .students.sharding import is_spread, own_rows


class Gradients:
    """Of ``parameters``; ``parts`` is what the optimizer moves of each."""

    def __init__(self, parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self.parameters, self.processes = list(parameters), processes
        self.parts = [nn.Parameter(own_rows(one)) if is_spread(one) else one for one in parameters]

    def clear(self) -> None:
        """Forget the step before."""
        for parameter in (*self.parameters, *self.parts):
            parameter.grad = None

    def join(self, scale: float = 1.0) -> None:
        """Make them those of the whole step, also where this process had no micro-batch of it, of a loss that
        was not multiplied by ``scale``.
        """
        self._sum()
        if scale != 1:
            for part in self.parts:
                if part.grad is not None:
                    part.grad.div_(scale)

    def _sum(self) -> None:
        if self.processes.count == 1:
            return
        for parameter, part in zip(self.parameters, self.parts, strict=True):
            gradient = parameter.grad
            part.grad = torch.zeros_like(part) if gradient is None else own_rows(gradient)
        self.processes.add([part.grad for part in self._whole() if part.grad is not None])

    def _whole(self) -> list[nn.Parameter]:
        return [part for one, part in zip(self.parameters, self.parts, strict=True) if part is one]

    def clip(self, limit: float) -> float:
        """Make their norm at most ``limit``; returns what it was."""
        whole = self._whole()
        if len(whole) == len(self.parts):
            return float(nn.utils.clip_grad_norm_(self.parts, limit))
        spread = [part for one, part in zip(self.parameters, self.parts, strict=True) if part is not one]
        squares = _squares(spread)
        self.processes.add([squares])
        norm = float((squares + _squares(whole)).sqrt())
        for part in self.parts:
            if part.grad is not None:
                part.grad.mul_(min(1.0, limit / (norm + 1e-6)))
        return norm


def _squares(parts: Sequence[nn.Parameter]) -> Tensor:
    """The sum of the squares of all gradients, a number."""
    found = [part.grad.square().sum() for part in parts if part.grad is not None]
    return torch.stack(found).sum() if found else torch.zeros(())
