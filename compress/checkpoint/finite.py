"""NaN and infinity in stored weights, found as they are loaded and named."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...errors import CheckpointError

SHOWN = 5


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
    values = tensor.to(torch.float32) if tensor.element_size() == 1 else tensor
    finite = int(torch.isfinite(values).sum())
    if finite == values.numel():
        return ""
    nan = int(torch.isnan(values).sum())
    return f"{name} has {nan} NaN and {values.numel() - finite - nan} Inf of {values.numel()} values"
