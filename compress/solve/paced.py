"""Progress through a call that cannot be looked into, as one of LAPACK: at the pace of such work here."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import torch

from ...files.limits import address_space_limit
from ...terminal.progress import Tick

_EVERY = 1.0  # seconds
_PROBE = 768  # the sides of the product that tells the pace


@contextmanager
def paced(tick: Tick, multiplications: float) -> Iterator[None]:
    """Tell ``tick`` of ``multiplications``, which the body does in one call: once a second what should be
    done by then, in a thread, and at the end what is left.
    """
    steps = int(multiplications / _PROBE**3 * _probe() / _EVERY) if multiplications > 100 * _PROBE**3 else 0
    ended, told = Event(), 0

    def tell() -> None:
        nonlocal told
        while told < steps - 1 and not ended.wait(_EVERY):
            tick(multiplications / steps)
            told += 1

    thread = Thread(target=tell, daemon=True)
    # Under a limit of memory a thread may never start.
    begun = steps > 1 and address_space_limit() is None
    if begun:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if begun:
            thread.join()
    tick(multiplications * (1 - told / max(steps, 1)))


def _probe() -> float:
    """Seconds of a product now."""
    square = torch.ones(_PROBE, _PROBE)
    square @ square
    start = time.perf_counter()
    square @ square
    return time.perf_counter() - start
