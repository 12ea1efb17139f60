"""``Average``: an exponential moving average of the parameters, which is measured and kept in their place.

Polyak, Juditsky 1992, in the form that networks use it: ``average ← decay · average + (1 − decay) ·
parameter`` after each step, with a decay that begins small, so that the beginning is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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
        self._assign(self.values)
        try:
            yield
        finally:
            self._assign(kept)

    def _assign(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)
