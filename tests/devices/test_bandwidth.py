"""The bandwidth measurement: its plan, its errors and that a child really measures."""

from __future__ import annotations

import sys
import time

import pytest
from edgepress.devices import bandwidth
from edgepress.devices.bandwidth import beyond_cache, measure_bandwidth
from edgepress.errors import EdgepressError, InputError, OutOfResource

pytestmark = pytest.mark.chain


def test_a_child_measures_every_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_bandwidth(1 << 20, threads=2, repeats=2)
    assert len(found.samples) == 2
    assert found.bytes_per_second == max(found.samples) > 0
    assert found.as_dict()["gb_per_second"] == found.bytes_per_second / 1e9
    assert (found.threads, found.streams_per_thread) == (2, 2)


def test_rates_count_every_byte_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that advances one second per look makes each repeat last a known time.
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(bandwidth, "BYTES_PER_REPEAT", 4 << 20)
    assert bandwidth.rates(2 << 20, 1, 3) == [4 << 20] * 3


@pytest.mark.parametrize(
    "request_",
    [{"working_set": 1000}, {"working_set": 1 << 20, "threads": 0}, {"working_set": 1 << 20, "repeats": 0}],
)
def test_impossible_requests(request_: dict[str, int]) -> None:
    with pytest.raises(InputError, match="cannot measure bandwidth"):
        measure_bandwidth(**request_)


def test_more_than_the_memory_is_refused_before_it_starts() -> None:
    with pytest.raises(OutOfResource, match="half of the free memory"):
        measure_bandwidth(1 << 50)


def test_a_child_that_fails_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "__name__", "edgepress.devices.no_such_module")
    with pytest.raises(EdgepressError, match="bandwidth measurement failed") as caught:
        measure_bandwidth(1 << 20, threads=1, repeats=1)
    assert "no_such_module" in caught.value.why


def test_the_memory_working_set_exceeds_the_cache() -> None:
    assert beyond_cache(None) == 256 << 20
    assert beyond_cache(96 << 20) == 768 << 20
    assert beyond_cache(1 << 30) == 2 << 30


def test_the_parent_needs_no_numpy() -> None:
    import subprocess

    code = (
        "import sys, edgepress.devices.bandwidth; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
