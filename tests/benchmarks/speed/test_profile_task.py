"""The plan of a profile: its time is from the rates of the machine."""

from pathlib import Path

import pytest
from edgepress.benchmarks.speed import profile_task
from edgepress.benchmarks.speed.profile_task import ProfileTask, profile_needs
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.devices.bandwidth import beyond_cache
from edgepress.devices.energy import Meter, NoMeter
from edgepress.devices.processor import read_processor
from edgepress.devices.quick_rates import QuickRates
from edgepress.export.api import export_bundle

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def decoder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("plan") / "decoder", validate=False)


def seconds(bundle: Path, *, provider: str = "cpu", energy: bool = True) -> float:
    lengths = {"prompt_tokens": 64, "new_tokens": 64, "batch": 1}
    how = {"threads": 1, "protocol": Protocol(warmup_seconds=0), "energy": energy}
    task = ProfileTask.opened([bundle], provider=provider, **lengths, **how)  # type: ignore[arg-type]
    return profile_needs(task).seconds


def test_slower_memory_and_products_take_longer(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rate in (1e12, 1e6, 5e5):
        monkeypatch.setattr(profile_task, "quick_rates", lambda threads, rate=rate: QuickRates(rate, rate))
        found.append(seconds(decoder))
    fast, slow, slower = found
    assert slow > 2 * fast and slower - fast == pytest.approx(2 * (slow - fast), rel=0.01)


def test_memory_that_bandwidth_is_measured_in_is_planned(decoder: Path) -> None:
    """A pico bundle takes less than the part of memory that no cache serves."""
    lengths = {"prompt_tokens": 64, "new_tokens": 64, "batch": 1, "threads": 1, "protocol": Protocol()}
    how = {"provider": "cpu", "energy": False, **lengths}
    needs = profile_needs(ProfileTask.opened([decoder], **how))  # type: ignore[arg-type]
    assert needs.memory > beyond_cache(read_processor().last_level_cache_bytes)


def test_energy_takes_time_only_where_a_meter_is(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_task, "quick_rates", lambda threads: QuickRates(1e10, 1e10))
    monkeypatch.setattr(profile_task, "find_meter", lambda device: NoMeter("none here"))
    without = seconds(decoder)
    assert without == seconds(decoder, energy=False)
    monkeypatch.setattr(profile_task, "find_meter", lambda device: Meter("rapl_pkg", (), (), 0.001))
    windows = Protocol().energy_windows * Protocol().energy_seconds
    assert seconds(decoder) - without > 2 * windows
    assert seconds(decoder, energy=False) == without
