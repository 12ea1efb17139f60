"""Metrics from hand-made nanoseconds."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from edgepress.benchmarks.speed import latency
from edgepress.benchmarks.speed.latency import (
    KEPT_OBSERVATIONS,
    ArmSamples,
    load_cold,
    measure_arms,
    per_block,
    summarize_arm,
)
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.benchmarks.speed.work.loaded_work import Sample
from edgepress.benchmarks.speed.work.timed_work import Embedding, TimedGeneration, quantities
from edgepress.terminal.progress import Silent

MS = 1_000_000
GENERATION = TimedGeneration(prompt_tokens=100, new_tokens=5)


def generation(token_ms: float) -> Sample:
    """Prefill in 50 ms, first token at 51, four more tokens."""
    return {"prefill": [50 * MS], "first": [51 * MS], "tokens": [int(token_ms * MS)] * 4}


def arm(blocks: list[list[Sample] | None]) -> ArmSamples:
    return ArmSamples(blocks=blocks, warm_loads=[0.1, 0.2, 0.3], rss_peaks=[10, 20, 30])


def test_generation() -> None:
    samples = arm([[generation(10), generation(12), generation(20)], [generation(8)]])
    metrics, kept = summarize_arm(samples, GENERATION, seed=0)
    # Blocks: 12 ms (the median of its runs) and 8 ms.
    assert kept["tpot_ms"] == [12, 8]
    assert metrics["tpot_ms"].value == 10
    assert kept["decode_tps"] == [1000 / 12, 125]
    assert metrics["prefill_tps"].value == 2000
    assert metrics["ttft_ms"].value == 51
    assert kept["e2e_ms"] == [51 + 48, 51 + 32]
    assert len(kept["tokens_ms"]) == 16
    assert metrics["itl_ms"].reason == "p90 and p99 need more than 16 samples"
    assert metrics["load_ms"].value == 200
    assert metrics["rss_peak_bytes"].value == 20


def test_percentiles_see_every_token() -> None:
    runs = [generation(10) for _ in range(24)] + [generation(500)]
    metrics, _ = summarize_arm(arm([runs]), GENERATION, seed=0)
    assert metrics["itl_ms"].value == 10
    assert metrics["itl_ms"].p90 == 10
    assert metrics["itl_ms"].p99 is None


def test_a_block_with_a_sleep_is_left_out() -> None:
    samples = arm([[generation(10)], None, [generation(20)]])
    metrics, kept = summarize_arm(samples, GENERATION, seed=0)
    assert kept["tpot_ms"] == [10, 20]
    assert metrics["decode_tps"].n == 2
    assert per_block(samples, quantities(GENERATION)[0]) == [100, None, 50]


def test_no_usable_block_is_null() -> None:
    metrics, _ = summarize_arm(arm([None, None]), GENERATION, seed=0)
    assert metrics["decode_tps"].value is None
    assert metrics["decode_tps"].reason


def test_an_unproven_cold_load_is_null_with_its_reason() -> None:
    metrics, _ = summarize_arm(arm([[generation(10)]]), GENERATION, seed=0)
    assert metrics["load_cold_ms"].value is None
    assert "page cache" in metrics["load_cold_ms"].reason
    proven = ArmSamples(blocks=[[generation(10)]], cold_loads=[0.5])
    assert summarize_arm(proven, GENERATION, seed=0)[0]["load_cold_ms"].value == 500


def test_embedding() -> None:
    run = {"batch": [200 * MS], "single": [9 * MS, 11 * MS, 100 * MS]}
    metrics, kept = summarize_arm(arm([[run]]), Embedding(length=16, batch=32, singles=3), seed=0)
    assert metrics["sentences_per_second"].value == 160
    assert metrics["latency_ms"].value == 11
    assert kept["single_ms"] == [9, 11, 100]


def test_the_record_does_not_grow_without_end() -> None:
    runs = [generation(1)] * (KEPT_OBSERVATIONS // 4 + 1)
    metrics, kept = summarize_arm(arm([runs]), GENERATION, seed=0)
    assert "tokens_ms" not in kept
    assert metrics["itl_ms"].p99 == 1


class Scripted:
    """A worker whose blocks take what a script says, on a clock on which each block lasts a second."""

    script: Iterator[float]
    now = 0.0

    def __init__(self, bundle: Path, *_: Any, **__: Any) -> None:
        self.bundle = SimpleNamespace(name=str(bundle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def load(self, *, cold: bool) -> dict[str, Any]:
        assert not cold, "nothing is dropped from the page cache before it is timed"
        return {"seconds": 1.0, "cold": False, "providers": []}

    def ask(self, do: str, **_: float) -> dict[str, Any]:
        if do == "block":
            Scripted.now += 1
            return {"runs": [generation(next(self.script))], "suspended": False}
        return {"rss_peak_bytes": 1, "method": "scripted"}


@pytest.mark.parametrize(
    ("token_ms", "most_seconds", "blocks"),
    [
        ([10] * 50, 40, 5),  # narrow at once
        ([10, 20] * 2 + [10] * 46, 40, 11),  # narrow when enough blocks agree
        ([10, 20] * 25, 40, 40),  # never narrow: the limit of time
        ([10, 20] * 25, 0, 5),  # a fixed number
    ],
)
def test_blocks_are_added_until_the_speeds_are_narrow_or_the_time_is_over(
    token_ms: list[float], most_seconds: float, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted.script, Scripted.now = iter(token_ms), 0.0
    monkeypatch.setattr(latency, "Arm", Scripted)
    monkeypatch.setattr(latency, "time", SimpleNamespace(monotonic=lambda: Scripted.now))
    plan = Protocol(blocks=5, most_seconds=most_seconds)
    (found,) = measure_arms([Path("bundle")], GENERATION, plan, threads=1)
    assert len(found.blocks) == blocks


@pytest.mark.parametrize(("cold", "loads"), [(True, [1.0] * 3), (False, [])])
def test_loads_from_the_disk_are_as_many_as_blocks_or_none(
    cold: bool, loads: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dropping(Scripted):
        def load(self, **_: bool) -> dict[str, Any]:
            return {"seconds": 1.0, "cold": cold, "providers": []}

    monkeypatch.setattr(latency, "Arm", Dropping)
    found = [ArmSamples(blocks=[None] * 3), ArmSamples(blocks=[None] * 3)]
    load_cold([Path("one"), Path("other")], found, GENERATION, Silent(), threads=1)
    assert [one.cold_loads for one in found] == [loads, loads]
