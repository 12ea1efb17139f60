"""Masks on disk, and the statistic that compares two models."""

import pytest
import torch
from edgepress.compress.pipeline.block_shards import packed, unpacked
from edgepress.compress.pipeline.statistics import STATISTICS
from edgepress.compress.solve.group_solving import HALVES
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
def test_masks_round_trip_in_a_bit_a_weight(rows: int, columns: int, seed: int) -> None:
    mask = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) > 0.4
    bits = packed(mask)
    assert bits.numel() == -(-rows * columns // 8)
    assert torch.equal(unpacked(bits, (rows, columns)), mask)


def test_cross_grams_are_the_mean_outer_products_of_the_difference_in_each_half() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, original = torch.randn(50, 6, generator=generator), torch.randn(50, 6, generator=generator)
    for name, seen in zip(
        HALVES, ([*range(10), *range(20, 35)], [*range(10, 20), *range(35, 50)]), strict=True
    ):
        statistic = STATISTICS[name](6, torch.device("cpu"))
        for part in (slice(0, 20), slice(20, 50)):
            statistic.update(rows[part], original[part])
        expected = sum(torch.outer(original[row] - rows[row], rows[row]) for row in seen) / 25
        assert torch.allclose(statistic.value(), expected, atol=1e-5)
