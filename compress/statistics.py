"""What passes may ask of the calibration activations, by name; each is computed once for all passes that ask.

A statistic sees the inputs of a linear as rows ``[tokens, in]`` and keeps a fixed amount of memory.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Statistic(Protocol):
    """An accumulator over the input rows of one linear."""

    def update(self, rows: Tensor) -> None: ...

    def value(self) -> Tensor:
        """The mean over all rows seen; ends the accumulation."""


class Gram:
    """``gram``: mean over tokens of ``x xᵀ``, ``[in, in]`` float32. The Hessian of the layer's squared output
    error is
    twice this."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.total = torch.zeros(in_features, in_features, device=device)
        self.count = 0

    def update(self, rows: Tensor) -> None:
        rows = rows.to(torch.float32)
        self.total.addmm_(rows.T, rows)
        self.count += rows.shape[0]

    def value(self) -> Tensor:
        return self.total.div_(max(self.count, 1))


class AbsMean:
    """``absmean``: mean over tokens of ``|x|`` per input channel, ``[in]`` float32."""

    def __init__(self, in_features: int, device: torch.device) -> None:
        self.total = torch.zeros(in_features, device=device)
        self.count = 0

    def update(self, rows: Tensor) -> None:
        self.total += rows.to(torch.float32).abs().sum(0)
        self.count += rows.shape[0]

    def value(self) -> Tensor:
        return self.total / max(self.count, 1)


STATISTICS: dict[str, type[Gram] | type[AbsMean]] = {"gram": Gram, "absmean": AbsMean}

# Bytes a statistic holds for ``in`` input channels: the plan predicts memory from it.
STATISTIC_BYTES = {
    "gram": lambda in_features: 4 * in_features**2,
    "absmean": lambda in_features: 4 * in_features,
}
