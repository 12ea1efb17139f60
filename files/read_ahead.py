"""``Ahead``: what is needed of one place after another, the next of which a thread reads while one is used.

A GPU computes a block while the weights of the next come from disk.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_Read = TypeVar("_Read")


class Ahead(Generic[_Read]):
    """Has what ``read`` gives of places below ``count``; while one is used, a thread reads that which follows
    in the same direction.
    """

    def __init__(self, read: Callable[[int], _Read], count: int) -> None:
        self.read, self.count = read, count
        self.pool, self.last = ThreadPoolExecutor(1), -1
        self.begun: dict[int, Future[_Read]] = {}

    def take(self, place: int) -> _Read:
        """What is read of ``place``."""
        # Also what is of no use is waited for: a checkpoint has one reader at a time.
        found = {begun: future.result() for begun, future in self.begun.items()}
        value = found[place] if place in found else self.read(place)
        next_one = following(place, self.last, self.count)
        self.begun = {} if next_one is None else {next_one: self.pool.submit(self.read, next_one)}
        self.last = place
        return value


def following(place: int, last: int, count: int) -> int | None:
    """The place below ``count`` that follows ``place`` in the direction from ``last``, which was before it;
    None where there is none.
    """
    next_one = place + (1 if place > last else -1)
    return next_one if 0 <= next_one < count else None
