"""NaN and infinity in stored weights, found as they are loaded and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ....errors import CheckpointError

SHOWN = 5
_CHUNK = 1 << 20


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Check every floating-point tensor for NaN and infinity.

    Raises:
        CheckpointError: some are not finite; names the first tensors with their counts.
    """
    damaged = [text for name, tensor in tensors.items() if (text := _describe(name, tensor))]
    if damaged:
        more = f" and {len(damaged) - SHOWN} more tensors" if len(damaged) > SHOWN else ""
        raise CheckpointError(
            f"weights are not finite: {'; '.join(damaged[:SHOWN])}{more}",
            why="a training run that diverged, or an overflow when the weights were cast to a smaller type",
            fix="use an earlier checkpoint, or convert again from the training precision",
        )


def _describe(name: str, tensor: Tensor) -> str:
    if not tensor.is_floating_point():
        return ""
    size = tensor.numel()
    finite = _count(torch.isfinite, tensor)
    if finite == size:
        return ""
    nan = _count(torch.isnan, tensor)
    return f"{name} has {nan} NaN and {size - finite - nan} Inf of {size} values"


def _count(test: Callable[[Tensor], Tensor], tensor: Tensor) -> int:
    """How many values pass ``test``; a piece at a time, since the test copies what it looks at."""
    count = 0
    for part in torch.split(tensor.flatten(), _CHUNK):
        values = part.to(torch.float32) if part.element_size() == 1 else part
        count += int(test(values).sum())
    return count
