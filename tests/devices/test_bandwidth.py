"""The bandwidth measurement: its plan, its errors and that a child really measures."""

import subprocess
import sys
import time
from typing import Any

import pytest
from edgepress.devices import bandwidth
from edgepress.devices.bandwidth import LEAST_REPEATS, beyond_cache, measure_bandwidth, measure_bandwidths
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
    assert list(bandwidth.rates([1 << 20, 2 << 20], 1, 3)) == [[4 << 20] * 3] * 2


def test_working_sets_are_parts_of_one_and_repeats_are_bounded() -> None:
    found = measure_bandwidths([3 << 20, 1 << 20], threads=2, repeats=50, seconds=0.0)
    assert [one.working_set for one in found] == [1 << 20, 3 << 20]
    assert all(len(one.samples) == LEAST_REPEATS and one.bytes_per_second > 0 for one in found)


def test_what_was_read_before_the_time_was_over_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, timeout: float, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("python", timeout, output=said)

    monkeypatch.setattr(bandwidth.subprocess, "run", late)
    said: bytes | None = b"[1.0, 2.0]\n[3.0"
    (only,) = measure_bandwidths([1 << 20, 2 << 20], threads=1, limit_s=1.0)
    assert (only.working_set, only.samples) == (1 << 20, (1.0, 2.0))
    said = None
    with pytest.raises(EdgepressError, match="bandwidth measurement failed"):
        measure_bandwidths([1 << 20], threads=1, limit_s=1.0)


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
    assert beyond_cache(480 << 20) == 1 << 30, "of what a server shares among its machines no more is touched"


def test_the_parent_needs_no_numpy() -> None:
    code = (
        "import sys, edgepress.devices.bandwidth; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
