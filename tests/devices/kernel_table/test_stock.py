"""How many bytes kernels are timed with: as many as memory must serve, by the rates and not by what the
machine says of its caches.
"""

from pathlib import Path

import numpy as np
import pytest
from edgepress.devices.kernel_table import stock
from edgepress.devices.kernel_table.stock import enough_stock, spans, written_stock
from edgepress.devices.kernel_table.table import Reading

MB = 1 << 20


def readings(rates: dict[int, float], threads: int = 1) -> list[Reading]:
    return [
        Reading(threads=threads, working_set=size * MB, bytes_per_second=1e9 * rate)
        for size, rate in rates.items()
    ]


@pytest.mark.parametrize(
    ("rates", "enough"),
    [
        ({8: 40, 32: 14, 120: 14.5, 240: 13.3, 480: 13.4, 1024: 13.5}, 64),  # a cache that others fill
        ({8: 40, 32: 30, 120: 20, 240: 13.3, 480: 13.4, 1024: 13.5}, 480),
        ({8: 40, 32: 30, 120: 29, 240: 28, 480: 27, 1024: 13.5}, 1024),  # one that is this machine's alone
        ({8: 13, 32: 13}, 64),  # the time was over
    ],
)
def test_it_is_twice_what_memory_must_serve(rates: dict[int, float], enough: int) -> None:
    assert enough_stock(readings(rates)) == enough * MB


def test_the_number_of_threads_that_caches_help_most_decides() -> None:
    plain, helped = {8: 10.0, 100: 10.0, 200: 10.0, 400: 10.0}, {8: 20.0, 100: 15.0, 200: 10.0, 400: 10.0}
    assert enough_stock([*readings(plain), *readings(helped, 2)]) == 400 * MB
    assert enough_stock(readings(plain)) == 64 * MB


def test_working_sets_begin_small_and_end_with_the_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Processor:
        last_level_cache_bytes = 480 * MB

    monkeypatch.setattr(stock, "read_processor", Processor)
    assert [size // MB for size in spans(1024 * MB)] == [8, 32, 48, 64, 80, 96, 120, 240, 480, 720, 1024]
    assert [size // MB for size in spans(240 * MB)] == [8, 32, 48, 64, 80, 96, 120, 240]


def test_no_part_of_the_stock_is_like_another() -> None:
    with written_stock(3 * MB) as folder:
        found = np.fromfile(Path(folder) / "stock.bin", np.uint8).reshape(3, MB)
    assert not (found[0] == found[1]).all() and not (found[1] == found[2]).all()
    assert not folder.exists()
