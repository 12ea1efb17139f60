"""Snapshots of the machine and what two of them prove."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from edgepress.devices.state import State, disturbance, read_state

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
