"""What is needed next is read while something else is used."""

from __future__ import annotations

import torch
from edgepress.read_ahead import Ahead
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
