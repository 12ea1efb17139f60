"""Scales that learn keep their sign and some of their size."""

from __future__ import annotations

import pytest
import torch
from edgepress.compress.train.students.scale_side import on_its_side


@pytest.mark.parametrize(
    ("start", "now", "expected"),
    [
        (1.0, 2.0, 2.0),
        (1.0, -2.0, 1 / 16),
        (1.0, 0.01, 1 / 16),
        (-1.0, -2.0, -2.0),
        (-1.0, 2.0, -1 / 16),
        (-1.0, -0.01, -1 / 16),
    ],
)
def test_no_scale_crosses_zero(start: float, now: float, expected: float) -> None:
    assert float(on_its_side(torch.tensor([now]), torch.tensor([start]))) == expected
