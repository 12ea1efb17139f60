"""Batches side by side: all done, in order, on one session that is opened once; errors come through."""

from __future__ import annotations

import threading
import time

import pytest
from edgepress.errors import BundleError
from edgepress.runtime.engine.worker_threads import Lanes


def test_all_are_done_in_their_order_over_one_session() -> None:
    opened: list[str] = []
    seen: dict[int, tuple[str, str]] = {}

    def open_session() -> str:
        opened.append("session")
        return opened[-1]

    def work(session: str, item: int) -> None:
        seen[item] = session, threading.current_thread().name

    lanes = Lanes(3, open_session)
    assert not opened
    for count in (0, 50):
        items = list(range(count))
        assert list(lanes.run(work, items)) == items
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
        for item in Lanes(2, object).run(work, range(10_000)):
            done.append(item)
    assert done == [0, 1]
    assert len(begun) < 10_000


@pytest.mark.parametrize(("count", "batches", "pays"), [(1, 1000, False), (2, 7, False), (2, 8, True)])
def test_when_they_pay(count: int, batches: int, pays: bool) -> None:
    assert Lanes(count, object).pay(batches) is pays
