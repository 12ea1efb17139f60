"""Counters through zeus, from made-up readings as of its classes for Apple's processors and Jetson boards."""

from types import SimpleNamespace
from typing import Any

import pytest
from edgepress.devices.energy import MeterLost
from edgepress.devices.meters import soc


class Board:
    """As zeus's ``SoC``: millijoules that grow with each reading."""

    def __init__(self, **millijoules: Any) -> None:
        self.millijoules = millijoules

    def get_total_energy_consumption(self) -> SimpleNamespace:
        return SimpleNamespace(**self.millijoules)


def test_the_cpu_of_an_apple_processor_counts_and_its_gpu_stands_beside() -> None:
    board = Board(cpu_total_mj=1000, performance_cores_mj=[400, 500], gpu_mj=200, ane_mj=None)
    meter = soc.meter_of(board)
    assert [one.domain for one in meter.counted] == ["cpu"]
    assert [one.domain for one in meter.beside] == ["gpu"]
    before = meter.read()
    board.millijoules |= {"cpu_total_mj": 3500, "gpu_mj": 300}
    passed = meter.between(before, meter.read())
    assert passed.joules == pytest.approx(2.5) and passed.beside == {"gpu": pytest.approx(0.1)}


def test_a_jetson_counts_its_cpu_or_else_the_board() -> None:
    meter = soc.meter_of(Board(cpu_energy_mj=1.5, gpu_energy_mj=2.0, total_energy_mj=9.0))
    assert [one.domain for one in meter.counted] == ["cpu"]
    assert [one.domain for one in meter.beside] == ["gpu", "total"]
    (counted,) = soc.meter_of(Board(cpu_energy_mj=None, total_energy_mj=9.0)).counted
    assert (counted.domain, counted.read()) == ("total", 9000)


def test_no_reading_of_the_whole_is_a_reason() -> None:
    with pytest.raises(MeterLost, match="gpu_mj"):
        soc.meter_of(Board(gpu_mj=1, cpu_total_mj=None))


def test_a_counter_that_is_lost_is_said() -> None:
    board = Board(cpu_total_mj=1)
    meter = soc.meter_of(board)
    board.millijoules["cpu_total_mj"] = None
    with pytest.raises(MeterLost):
        meter.read()
