"""A limit of time for a part of a program that runs in this process."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ....errors import GateFailed


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`GateFailed` in the body when it has lasted longer; in the main thread of a POSIX system.

    A call into a library is not cut short, but ends the body when it returns.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise GateFailed(f"{what} was stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
