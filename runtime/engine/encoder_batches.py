"""How an encoder's texts become batches of about one length, and how batches run on worker threads.

On a CPU a batch gains nothing beyond a few hundred tokens: the matrix products are at full speed there, and
the values between them no longer fit the cache. Threads that share one batch meet after every node of the
graph, a hundred times or more; threads with a batch each never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ...files.limits import address_space_limit

# Measured on a core with 1 MB of second-level cache: benchmarks/lab/results/peers-encoders.md.
TOKENS_PER_CORE = 256


def length_buckets(lengths: Sequence[int], *, rows: int, tokens: int) -> list[list[int]]:
    """Indices of ``lengths`` in batches: each index once, the longest first.

    A batch has at most ``rows`` of them and, padded to its longest, at most ``tokens`` tokens; a text that is
    longer than that is a batch of its own. Within a batch lengths fall, and no later batch has a longer one.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not room:
            batches.append([])
            room = max(1, min(rows, tokens // max(1, lengths[index])))
        batches[-1].append(index)
        room -= 1
    return batches


Item = TypeVar("Item")

# Fewer batches a thread than this do not pay for opening a second session.
WORTH = 4


class WorkerThreads:
    """``count`` threads over the one session that ``open_one_thread`` makes when it is first needed."""

    def __init__(self, count: int, open_one_thread: Callable[[], Any]) -> None:
        self.count = count
        self._open = open_one_thread
        self._session: Any = None

    def pay(self, batches: int) -> bool:
        """Whether so many batches are better computed side by side."""
        return self.count > 1 and address_space_limit() is None and batches >= WORTH * self.count

    def run(self, work: Callable[[Any, Item], None], items: Sequence[Item]) -> Iterator[Item]:
        """``work(session, item)`` for all ``items``, which are yielded in their order as they are done.

        What ``work`` raises is raised here, and the items that nobody has begun are left.
        """
        from concurrent.futures import ThreadPoolExecutor

        if self._session is None:
            self._session = self._open()
        with ThreadPoolExecutor(self.count, thread_name_prefix="edgepress-worker") as executor:
            for item, _ in zip(
                items, executor.map(lambda item: work(self._session, item), items), strict=True
            ):
                yield item
