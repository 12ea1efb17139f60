"""Snapshots of the machine and what two of them prove."""

import random
import time
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.speed.sitting import SensorTrace
from edgepress.devices.state import Settled, State, disturbance, read_state, settle, throttled

QUIET: dict[str, Any] = {
    "at_seconds": 100.0,
    "load": 0.1,
    "ac": True,
    "battery_percent": 80.0,
    "governor": "performance",
    "energy_preference": None,
    "turbo": True,
    "temperature_c": 50.0,
    "frequency_mhz": 3000.0,
    "swap_bytes": 0,
    "cpu_busy_s": 1000.0,
    "cpu_steal_s": 5.0,
    "own_cpu_s": 10.0,
    "logical_cpus": 4,
}
# Ten seconds on four CPUs, of which our own work took half.
LATER = QUIET | {"at_seconds": 110.0, "cpu_busy_s": 1020.0, "own_cpu_s": 30.0}
HERE = read_state()


def between(**changes: Any) -> tuple[dict[str, float | None], list[str]]:
    return disturbance(State(**QUIET), State(**(LATER | changes)))


def test_own_work_is_not_noise() -> None:
    found, reasons = between()
    assert reasons == []
    assert found["other_cpu_pct"] == 0
    assert found["seconds"] == 10


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cpu_busy_s": 1028.0}, "noisy: other processes used 20 %"),
        ({"cpu_busy_s": 1022.0, "cpu_steal_s": 7.0}, "noisy: the hypervisor took 5 %"),
        ({"swap_bytes": 100 << 20}, "swapped"),
        ({"ac": False}, "power supply"),
        ({"governor": "powersave"}, "governor changed from performance to powersave"),
        ({"energy_preference": "power"}, "energy preference changed from None to power"),
        ({"turbo": False}, "turbo changed from True to False"),
        ({"frequency_mhz": 2600.0}, "clock fell by 13 %"),
    ],
)
def test_each_disturbance_is_named(changes: dict[str, Any], reason: str) -> None:
    _, reasons = between(**changes)
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_little_is_forgiven() -> None:
    _, reasons = between(cpu_busy_s=1023.0, swap_bytes=1 << 20, frequency_mhz=2800.0)
    assert reasons == []


def test_twenty_frequency_drops_are_flagged_and_twenty_clean_runs_are_not() -> None:
    generator = random.Random(0)
    drops = [between(frequency_mhz=3000 * generator.uniform(0.3, 0.9))[1] for _ in range(20)]
    clean = [between(frequency_mhz=3000 * generator.uniform(0.92, 1.1))[1] for _ in range(20)]
    assert [len(reasons) for reasons in drops] == [1] * 20
    assert clean == [[]] * 20


def test_unknown_sensors_prove_nothing() -> None:
    unknown = {"frequency_mhz": None, "swap_bytes": None, "ac": None, "governor": None, "turbo": None}
    found, reasons = disturbance(State(**(QUIET | unknown)), State(**(LATER | unknown)))
    assert reasons == []
    assert found["frequency_change_pct"] is found["swap_growth_bytes"] is None


def test_power_policy_from_files(tmp_path: Path) -> None:
    cpu = tmp_path / "devices/system/cpu"
    (cpu / "cpu0/cpufreq").mkdir(parents=True)
    (cpu / "cpu0/cpufreq/scaling_governor").write_text("powersave\n")
    (cpu / "cpu0/cpufreq/energy_performance_preference").write_text("balance_power\n")
    (cpu / "intel_pstate").mkdir()
    (cpu / "intel_pstate/no_turbo").write_text("1\n")
    state = read_state(tmp_path)
    assert (state.governor, state.energy_preference, state.turbo) == ("powersave", "balance_power", False)


def test_amd_boost(tmp_path: Path) -> None:
    folder = tmp_path / "devices/system/cpu/cpufreq"
    folder.mkdir(parents=True)
    (folder / "boost").write_text("1\n")
    state = read_state(tmp_path)
    assert (state.turbo, state.governor) == (True, None)


def test_counters_grow_with_our_own_work() -> None:
    before = read_state()
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    after = read_state()
    assert after.at_seconds > before.at_seconds
    assert after.own_cpu_s - before.own_cpu_s >= 0.03
    assert after.cpu_busy_s >= before.cpu_busy_s


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
    from edgepress.benchmarks.speed import sitting

    monkeypatch.setattr(sitting, "read_sensors", lambda: (2400.0, None))
    counts = iter([(False, 3), *repeat((False, 4), 1000)])
    monkeypatch.setattr(sitting, "throttled", lambda: next(counts))
    with SensorTrace(every_s=100) as trace:
        pass
    found = trace.as_dict()
    assert set(found) == {"seconds", "frequency_mhz"}
    assert len(found["seconds"]) == len(found["frequency_mhz"]) >= 1
    assert trace.doubts() == ["the processor was throttled during the run"]
