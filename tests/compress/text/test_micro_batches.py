"""What is held out: every eighth micro-batch of little text, about as many tokens as are enough of much."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from edgepress.compress.text.micro_batches import MicroBatch, held_out_tokens, hold_out
from edgepress.errors import CalibrationError

LENGTH = 512


def micro_batches(count: int) -> list[MicroBatch]:
    row = torch.ones(1, LENGTH, dtype=torch.int64)
    return [MicroBatch(number, row, row, LENGTH) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "kept"), [(2, 1), (8, 1), (17, 2), (64, 8), (512, 64), (2048, 64), (3000, 65)]
)
def test_micro_batches_are_held_out_evenly(count: int, kept: int) -> None:
    learned_from, held_out = hold_out(micro_batches(count))
    assert len(held_out) == kept
    assert len(learned_from) + kept == count
    numbers = [batch.number for batch in held_out]
    assert not set(numbers) & {batch.number for batch in learned_from}
    assert len({later - earlier for earlier, later in pairwise(numbers)}) <= 1


@pytest.mark.parametrize("count", [64, 512, 4096])
def test_the_plan_knows_how_much_that_is(count: int) -> None:
    held_out = sum(batch.tokens for batch in hold_out(micro_batches(count))[1])
    assert held_out == pytest.approx(held_out_tokens(count * LENGTH), rel=0.1)


def test_one_micro_batch_is_not_enough() -> None:
    with pytest.raises(CalibrationError, match="1 micro-batch of text is too few"):
        hold_out(micro_batches(1))
