"""Batches of one length: nothing lost, nothing twice, bounds kept, little padding."""

from __future__ import annotations

import pytest
from edgepress.runtime.engine.length_buckets import length_buckets
from hypothesis import example, given
from hypothesis import strategies as st


@given(
    lengths=st.lists(st.integers(1, 600), max_size=80),
    rows=st.integers(1, 40),
    tokens=st.integers(1, 2000),
)
@example(lengths=[], rows=1, tokens=1)
@example(lengths=[600, 600], rows=40, tokens=1)
def test_every_text_once_within_the_bounds(lengths: list[int], rows: int, tokens: int) -> None:
    batches = length_buckets(lengths, rows=rows, tokens=tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert 1 <= len(batch) <= rows
        assert len(batch) == 1 or len(batch) * longest <= tokens
    in_order = [lengths[index] for batch in batches for index in batch]
    assert in_order == sorted(lengths, reverse=True)


@given(lengths=st.lists(st.integers(1, 600), min_size=2, max_size=60), tokens=st.integers(1, 2000))
def test_a_batch_ends_only_where_the_next_text_would_not_fit(lengths: list[int], tokens: int) -> None:
    batches = length_buckets(lengths, rows=8, tokens=tokens)
    for batch in batches[:-1]:
        assert len(batch) == 8 or (len(batch) + 1) * lengths[batch[0]] > tokens


@pytest.mark.parametrize("tokens", [256, 2048])
def test_padding_of_a_spread_of_lengths_is_small(tokens: int) -> None:
    lengths = [3 + (index * 7919) % 254 for index in range(2000)]
    batches = length_buckets(lengths, rows=32, tokens=tokens)
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    assert padded < 1.02 * sum(lengths)
