"""Statistics of a layer's inputs, beside sums written out by hand."""

from __future__ import annotations

import pytest
import torch
from edgepress.compress.pipeline.statistics import Gram


@pytest.mark.parametrize("width", [1, 3, 4, 5, 8, 37])
def test_a_gram_is_the_mean_of_outer_products_whatever_its_strips(width: int) -> None:
    rows = torch.randn(21, width, generator=torch.Generator().manual_seed(0))
    gram = Gram(width, torch.device("cpu"))
    for part in (rows[:8], rows[8:8], rows[8:]):
        gram.update(part, None)
    expected = sum(torch.outer(row, row) for row in rows) / len(rows)
    found = gram.value()
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found, found.T, atol=1e-6)


def test_a_gram_of_nothing_is_zero() -> None:
    assert not bool(Gram(6, torch.device("cpu")).value().any())
