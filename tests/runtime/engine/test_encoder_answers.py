"""Batches of about one length, each index once; and batches on worker threads, in their order."""

import threading
import time

import pytest
from edgepress.errors import BundleError
from edgepress.runtime.engine.encoder_answers import WorkerThreads, length_buckets
from hypothesis import example, given
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


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


def test_all_are_done_in_their_order_over_one_session() -> None:
    opened: list[str] = []
    seen: dict[int, tuple[str, str]] = {}

    def open_session() -> str:
        opened.append("session")
        return opened[-1]

    def work(session: str, item: int) -> None:
        seen[item] = session, threading.current_thread().name

    workers = WorkerThreads(3, open_session)
    assert not opened
    for count in (0, 50):
        items = list(range(count))
        assert list(workers.run(work, items)) == items
    assert opened == ["session"]
    assert sorted(seen) == list(range(50))
    assert {session for session, _ in seen.values()} == {"session"}
    assert threading.main_thread().name not in {name for _, name in seen.values()}


def test_an_error_ends_it_and_leaves_the_rest() -> None:
    begun: list[int] = []

    def work(_: object, item: int) -> None:
        begun.append(item)
        if item == 2:
            raise BundleError("the graph failed on a batch")
        time.sleep(0.001)  # a machine that is busy elsewhere would have done all before it is looked at

    done = []
    with pytest.raises(BundleError, match="graph failed"):
        for item in WorkerThreads(2, object).run(work, range(10_000)):
            done.append(item)
    assert done == [0, 1]
    assert len(begun) < 10_000


@pytest.mark.parametrize(("count", "batches", "pays"), [(1, 1000, False), (2, 7, False), (2, 8, True)])
def test_when_they_pay(count: int, batches: int, pays: bool) -> None:
    assert WorkerThreads(count, object).pay(batches) is pays
