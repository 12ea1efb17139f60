"""What is needed next is read while something else is used."""

import threading

import torch
from edgepress.files.read_ahead import Ahead
from torch import Tensor


def test_the_next_place_is_read_while_one_is_used() -> None:
    read: list[int] = []

    def values(place: int) -> list[Tensor]:
        read.append(place)
        return [torch.tensor(place)]

    ahead = Ahead(values, 3)
    for expected in (0, 1, 2, 2, 1, 0, 0, 1, 2):
        assert ahead.take(expected)[0] == expected
        for future in ahead.begun.values():
            future.result()
    # Once each, but where the direction changes: a place that was read for nothing, or again.
    assert read == [0, 1, 2, 2, 1, 0, 0, 1, 2]


def test_what_is_taken_does_not_wait_for_what_follows_it() -> None:
    used = threading.Event()

    def read(place: int) -> int:
        assert place == 0 or used.wait(60), "the second place was waited for before the first was used"
        return place

    ahead = Ahead(read, 2)
    assert ahead.take(0) == 0
    assert not ahead.begun[1].done()  # it is being read
    used.set()
    assert ahead.take(1) == 1
