"""Statistics of a layer's inputs, beside sums written out by hand."""

import pytest
import torch
from edgepress.compress.pipeline.statistics import Gram, mean_square_of_outputs


@pytest.mark.parametrize("width", [1, 37, 512, 513, 1100])
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


@pytest.mark.parametrize("width", [3, 512, 1100])
def test_the_mean_square_of_outputs_is_that_of_the_tokens(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, rows = torch.randn(5, width, generator=generator), torch.randn(30, width, generator=generator)
    gram = rows.T @ rows / len(rows)
    expected = (rows @ weight.T).square().sum() / len(rows)
    assert mean_square_of_outputs(weight, gram) == pytest.approx(float(expected), rel=1e-5)
