"""Scales that learn stay on their side of zero: one that crosses it would turn codes around."""

from __future__ import annotations

import torch
from torch import Tensor

from ...numbers.grid import storable

_SMALLEST = 1 / 16  # of the size that a scale began with


def on_its_side(scale: Tensor, start: Tensor) -> Tensor:
    """``scale`` as it is stored: of the sign of ``start``, no smaller than a share of it."""
    side = start.sign()
    return storable(side * torch.maximum(side * scale, start.abs() * _SMALLEST))
