"""``Lanes``: independent batches side by side, each on one thread of its own.

Threads that share one batch meet after every node of the graph, a hundred times or more; threads with a batch
each never meet. They share one session, which has no thread pool: it computes on the thread that calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")

# Fewer batches a lane than this do not pay for opening a second session.
WORTH = 4


class Lanes:
    """``count`` lanes over the session that ``open_one_thread`` makes when it is first needed."""

    def __init__(self, count: int, open_one_thread: Callable[[], Any]) -> None:
        self.count = count
        self._open = open_one_thread
        self._session: Any = None

    def pay(self, batches: int) -> bool:
        """Whether so many batches are better computed side by side."""
        return self.count > 1 and batches >= WORTH * self.count

    def run(self, work: Callable[[Any, Item], None], items: Sequence[Item]) -> Iterator[Item]:
        """``work(session, item)`` for all ``items``, which are yielded in their order as they are done.

        What ``work`` raises is raised here, and the items that nobody has begun are left.
        """
        from concurrent.futures import ThreadPoolExecutor

        if self._session is None:
            self._session = self._open()
        with ThreadPoolExecutor(self.count, thread_name_prefix="edgepress-lane") as executor:
            for item, _ in zip(
                items, executor.map(lambda item: work(self._session, item), items), strict=True
            ):
                yield item
