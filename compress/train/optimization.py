"""What a step of the optimizer has beside it: gradients, the scale of losses, the average of parameters.

Gradients are summed over all processes and clipped, on what the optimizer moves. Of a parameter that is
spread over processes the optimizer moves the own rows: torch has summed their gradient already, and the norm
is that of all rows.

In float16 losses are multiplied before the way back, so that small gradients are not zero (Micikevicius et
al. 2017, "Mixed Precision Training", arXiv 1710.03740), with a factor that finds its place: it halves when a
gradient overflows, and that step is skipped; after many steps without it doubles. Gradients are divided by it
again before anything reads them. It is a power of two, so that it rounds nothing itself.

The exponential moving average (Polyak, Juditsky 1992) is ``average ← decay · average + (1 − decay) ·
parameter`` after each step, with a decay that begins small, so that the beginning is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..pipeline.processes import Processes
from .students.relative import is_spread, own_rows


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


_FIRST, _LARGEST = 2.0**16, 2.0**24
_PATIENCE = 200  # steps without an overflow before it doubles


@dataclass
class LossScale:
    """``factor`` is 1 and stays, where nothing ``moves`` it: in float32 and bfloat16."""

    factor: float = 1.0
    calm: int = 0
    skipped: int = 0

    @classmethod
    def begun(cls, *, moves: bool) -> LossScale:
        """The scale of a run that begins."""
        return cls(_FIRST) if moves else cls()

    @property
    def moves(self) -> bool:
        """Whether there is a scale at all, and a gradient that overflows may be its fault."""
        return self.factor > 1

    def overflowed(self) -> None:
        """A step was skipped."""
        self.factor, self.calm = self.factor / 2, 0
        self.skipped += 1

    def held(self) -> None:
        """A step was taken."""
        self.calm += 1
        if self.moves and self.calm >= _PATIENCE:
            self.factor, self.calm = min(2 * self.factor, _LARGEST), 0


class Average:
    """Of ``parameters``; with ``decay`` 0 it is the parameters themselves and costs nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values: list[Tensor] = [one.detach().clone() for one in parameters] if decay else []

    def update(self, step: int) -> None:
        """Take in the parameters after ``step`` steps, counted from 1."""
        if not self.values:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters have the average's values for as long as the context lasts."""
        if not self.values:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters]
        assign(self.parameters, self.values)
        try:
            yield
        finally:
            assign(self.parameters, kept)


def assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Give each of ``parameters`` its value."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
