"""Which meter is chosen, and what is said where there is none."""

from typing import Any

import pytest
from edgepress.devices import energy
from edgepress.devices.energy import Meter, NoMeter, choose, find_meter, find_meters
from edgepress.plugins import load, names


def test_every_meter_says_what_it_counts_and_how_it_is_found() -> None:
    for name in names(energy.PACKAGE):
        source = load(energy.PACKAGE, name, "energy meter")
        assert source.DEVICE in ("cpu", "cuda") and callable(source.find)


def test_the_finest_of_several_counts() -> None:
    fine, coarse = Meter("fine", (), (), 0.001), Meter("coarse", (), (), 30.0)
    assert choose([coarse, NoMeter("absent"), None, fine]) is fine


def test_without_one_every_reason_is_given_and_the_first_way_out() -> None:
    assert choose([NoMeter("absent"), NoMeter("locked", "unlock it"), None]) == NoMeter(
        "absent; locked", "unlock it"
    )
    assert "reads Linux RAPL" in choose([None]).reason  # type: ignore[union-attr]


def test_the_processor_is_counted_by_its_packages(powercap: Any) -> None:
    powercap.zone("intel-rapl:0", "package-0")
    powercap.zone("intel-rapl:1", "psys")
    meter = find_meter("cpu")
    assert str(meter) == "package-0 can be read, and beside it psys (rapl_pkg)"
    assert meter.describe() == {
        "method": "rapl_pkg",
        "domains": ["package-0"],
        "beside": ["psys"],
        "update_s": 0.001,
    }


def test_a_gpu_is_asked_for_only_where_there_is_one(powercap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(find_meters(gpu=False)) == ["cpu"]
    assert list(find_meters(gpu=True)) == ["cpu", "cuda"]
