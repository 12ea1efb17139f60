"""RAPL from made-up folders: sockets add up, psys and dram stand beside, wraps count, refusals explain."""

from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.energy import Meter, MeterLost, NoMeter
from edgepress.devices.meters import rapl


def found() -> Meter:
    meter = rapl.find()
    assert isinstance(meter, Meter)
    return meter


def two_sockets(powercap: Any) -> dict[str, Path]:
    """Two packages with cores and memory, the board, and the first package's counters by another way."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "core",
        "intel-rapl:1:1": "dram",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    return {path: powercap.zone(path, name) for path, name in zones.items()}


def test_packages_add_up_and_what_overlaps_stands_beside(powercap: Any) -> None:
    files = two_sockets(powercap)
    meter = found()
    assert meter.method == "rapl_pkg"
    assert [one.domain for one in meter.counted] == ["package-0", "package-1"]
    assert [one.domain for one in meter.beside] == ["package-0/dram", "package-1/dram", "psys"]
    before = meter.read()
    passed = {"intel-rapl:0": 3_000_000, "intel-rapl:1": 500_000, "intel-rapl:0:0": 2_900_000}
    passed |= {"intel-rapl:0:1": 250_000, "intel-rapl:2": 9_000_000, "intel-rapl-mmio:0": 3_000_000}
    for path, microjoules in passed.items():
        files[path].write_text(str(microjoules))
    consumed = meter.between(before, meter.read())
    assert (consumed.joules, consumed.wraps) == (3.5, 0)
    assert consumed.beside == {"package-0/dram": 0.25, "package-1/dram": 0.0, "psys": 9.0}


def test_a_counter_that_begins_again_is_made_whole(powercap: Any) -> None:
    file = powercap.zone("intel-rapl:0", "package-0", 262_143_000_000, wraps_at=262_143_328_850)
    meter = found()
    before = meter.read()
    file.write_text("671150")
    consumed = meter.between(before, meter.read())
    assert (consumed.joules, consumed.wraps) == (1.0, 1)


def test_a_counter_that_goes_backwards_without_saying_where_it_wraps_is_lost(powercap: Any) -> None:
    file = powercap.zone("intel-rapl:0", "package-0", 5_000_000, wraps_at=None)
    meter = found()
    before = meter.read()
    file.write_text("4000000")
    with pytest.raises(MeterLost, match="package-0 went backwards"):
        meter.between(before, meter.read())


def test_a_counter_for_root_only_names_the_way_out(powercap: Any) -> None:
    powercap.zone("intel-rapl:0", "package-0")
    powercap.denied = True
    answer = rapl.find()
    assert isinstance(answer, NoMeter)
    assert "root only (since CVE-2020-8694)" in answer.reason
    assert "sudo chmod a+r" in answer.fix


def test_one_unreadable_socket_of_two_is_no_half_truth(powercap: Any) -> None:
    files = two_sockets(powercap)
    files["intel-rapl:1"].write_text("nothing")
    answer = rapl.find()
    assert isinstance(answer, NoMeter)
    assert answer.reason.startswith("the CPU's energy counter cannot be read")
    assert answer.fix == ""


def test_what_stands_beside_may_be_unreadable(powercap: Any) -> None:
    files = two_sockets(powercap)
    files["intel-rapl:2"].unlink()
    assert [one.domain for one in found().beside] == ["package-0/dram", "package-1/dram"]


def test_a_board_without_packages_is_not_taken_for_one(
    powercap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    powercap.zone("intel-rapl:0", "psys")
    monkeypatch.setattr(rapl.sys, "platform", "linux")
    answer = rapl.find()
    assert isinstance(answer, NoMeter)
    assert "shows no CPU energy counter" in answer.reason


def test_another_system_is_not_asked(powercap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rapl.sys, "platform", "darwin")
    assert rapl.find() is None


def test_a_counter_that_vanishes_is_lost(powercap: Any) -> None:
    file = powercap.zone("intel-rapl:0", "package-0")
    meter = found()
    file.unlink()
    with pytest.raises(MeterLost, match="cannot be read: No such file"):
        meter.read()
