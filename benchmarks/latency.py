"""Runs one or two arms: fresh worker processes, warm-up, timed blocks in ABBA order, loads and peak memory.

Each process gives one cold load (page cache dropped, where that can be proven), its share of the blocks, its
peak memory, and last one warm load, whose second copy of the model must not count in the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..terminal import Progress, Silent, Task
from .arm import Arm
from .protocol import Protocol, turns
from .timed_work import Sample, Workload


@dataclass
class ArmSamples:
    """What one arm gave.

    Attributes:
        blocks: per block the samples of its runs, or None when the machine slept in it.
        cold_loads: seconds; a load whose cold page cache could not be proven is not here.
        warm_loads: seconds.
        rss_peaks: bytes, one per process; ``rss_method`` says how they were counted.
        warm_ups: iterations and seconds, one per process.
        providers: execution providers of the session, best first.
    """

    blocks: list[list[Sample] | None] = field(default_factory=list)
    cold_loads: list[float] = field(default_factory=list)
    warm_loads: list[float] = field(default_factory=list)
    rss_peaks: list[int] = field(default_factory=list)
    rss_method: str = ""
    warm_ups: list[dict[str, Any]] = field(default_factory=list)
    providers: list[str] = field(default_factory=list)


def measure_arms(
    bundles: Sequence[Path],
    workload: Workload,
    protocol: Protocol,
    *,
    threads: int,
    provider: str = "cpu",
    progress: Progress | None = None,
) -> list[ArmSamples]:
    """Measure one bundle, or two in turns; the samples come in the order of ``bundles``.

    Raises:
        EdgepressError: what a worker raised, or the manner of its death (see :meth:`.arm.Arm.ask`).
    """
    arms = [ArmSamples() for _ in bundles]
    steps = len(arms) * (3 * len(protocol.shares()) + protocol.blocks)
    order = turns(protocol.blocks, len(arms))
    with (progress or Silent()).task("measuring", steps) as task:
        for share in protocol.shares():
            with ExitStack() as stack:
                workers = [
                    stack.enter_context(Arm(path, workload, threads=threads, provider=provider))
                    for path in bundles
                ]
                _measure_process(workers, arms, order[:share], protocol, task)
            order = order[share:]
    return arms


def _measure_process(
    workers: list[Arm], arms: list[ArmSamples], order: list[list[int]], protocol: Protocol, task: Task
) -> None:
    for worker, samples in zip(workers, arms, strict=True):
        loaded = worker.load(cold=True)
        samples.providers = loaded["providers"]
        if loaded["cold"]:
            samples.cold_loads.append(loaded["seconds"])
        task.advance(detail=f"loaded {worker.bundle.name}")
    for worker, samples in zip(workers, arms, strict=True):
        limits = {"iterations": protocol.warmup_iterations, "seconds": protocol.warmup_seconds}
        samples.warm_ups.append(worker.ask("warm_up", **limits))
        task.advance(detail=f"warmed {worker.bundle.name}")
    for turn in order:
        for index in turn:
            block = workers[index].ask("block", min_ms=protocol.block_ms)
            arms[index].blocks.append(None if block["suspended"] else block["runs"])
            task.advance(detail=f"timed {workers[index].bundle.name}")
    for worker, samples in zip(workers, arms, strict=True):
        memory = worker.ask("memory")
        samples.rss_peaks.append(memory["rss_peak_bytes"])
        samples.rss_method = memory["method"]
        samples.warm_loads.append(worker.load(cold=False)["seconds"])
        task.advance(detail=f"loaded {worker.bundle.name} again")
