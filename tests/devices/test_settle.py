"""Waiting for a cool and quiet machine ends, and says what it could not have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.sensor_trace import SensorTrace
from edgepress.devices.settle import Settled, settle, throttled
from edgepress.devices.state import State, read_state

HERE = read_state()


def machine(heat: Iterator[float | None], **changes: Any) -> Callable[[], State]:
    found = {"frequency_mhz": 2400.0, "ac": True, "governor": "performance", **changes}
    return lambda: HERE.model_copy(update={"temperature_c": next(heat), **found})


def settled(tmp_path: Path, busy: Iterator[float], state: Callable[[], State]) -> Settled:
    seconds = count()
    return settle(60, busy=lambda: next(busy), state=state, clock=lambda: float(next(seconds)), sys=tmp_path)


def test_a_machine_at_rest_is_not_waited_for(tmp_path: Path) -> None:
    found = settled(tmp_path, repeat(1.0), machine(repeat(40.0)))
    assert found.seconds < 10 and found.doubts == ()


def test_it_waits_until_others_stop_and_it_no_longer_cools(tmp_path: Path) -> None:
    heat = chain((80.0 - 2 * step for step in range(20)), repeat(42.0))
    found = settled(tmp_path, chain(repeat(90.0, 10), repeat(1.0)), machine(heat))
    assert 20 < found.seconds < 60 and found.doubts == ()


def test_the_wait_is_bounded_and_a_doubt(tmp_path: Path) -> None:
    found = settled(tmp_path, repeat(90.0), machine(count(80.0, -2.0)))
    assert found.seconds == pytest.approx(60, abs=2)
    assert [doubt.split()[0] for doubt in found.doubts] == ["noisy:", "it"]


def test_missing_sensors_are_a_doubt_and_no_wait(tmp_path: Path) -> None:
    found = settled(tmp_path, repeat(1.0), machine(repeat(None), frequency_mhz=None))
    assert found.seconds < 5
    assert found.doubts == ("no sensor of temperature and clock frequency: throttling would not be seen",)


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"ac": False}, "battery"),
        ({"governor": "powersave"}, "powersave"),
        ({"energy_preference": "power"}, "energy preference power"),
    ],
)
def test_power_is_looked_at(tmp_path: Path, changes: dict[str, Any], doubt: str) -> None:
    assert doubt in " ".join(settled(tmp_path, repeat(1.0), machine(repeat(40.0), **changes)).doubts)


def test_the_powersave_of_pstate_drivers_is_no_doubt(tmp_path: Path) -> None:
    folder = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_driver").write_text("intel_pstate\n")
    assert settled(tmp_path, repeat(1.0), machine(repeat(40.0), governor="powersave")).doubts == ()


@pytest.mark.parametrize(("text", "now"), [("50000", False), ("50005", True), ("0", False), ("what?", False)])
def test_a_board_that_throttles(tmp_path: Path, text: str, now: bool) -> None:
    file = tmp_path / "devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert throttled(tmp_path) == (now, None)
    doubts = settled(tmp_path, repeat(1.0), machine(repeat(40.0))).doubts
    assert any("throttled now" in doubt for doubt in doubts) == now


def test_cores_that_count_their_throttling(tmp_path: Path) -> None:
    for core, times in enumerate("23"):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(times)
    assert throttled(tmp_path) == (False, 5)


def test_the_trace_has_a_column_for_each_sensor_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgepress.devices import sensor_trace

    monkeypatch.setattr(sensor_trace, "read_sensors", lambda: (2400.0, None))
    counts = iter([(False, 3), *repeat((False, 4), 1000)])
    monkeypatch.setattr(sensor_trace, "throttled", lambda: next(counts))
    with SensorTrace(every_s=100) as trace:
        pass
    found = trace.as_dict()
    assert set(found) == {"seconds", "frequency_mhz"}
    assert len(found["seconds"]) == len(found["frequency_mhz"]) >= 1
    assert trace.doubts() == ["the processor was throttled during the run"]
