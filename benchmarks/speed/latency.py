"""Runs one or two arms: fresh worker processes, warm-up, a timed block in each, loads and peak memory.

Each process gives one cold load (page cache dropped, where that can be proven), one block, its peak memory,
and last one warm load, whose second copy of the model must not count in the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...terminal import Progress, Silent, Task
from .arm import Arm
from .loaded_work import Sample
from .protocol import Protocol
from .timed_work import Workload


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
    cache: bool = False,
    progress: Progress | None = None,
) -> list[ArmSamples]:
    """Measure one bundle, or two in turns; the samples come in the order of ``bundles``. With ``cache`` they
    run over their prepacked copies, where there are some.

    Raises:
        EdgepressError: what a worker raised, or the manner of its death (see :meth:`.arm.Arm.ask`).
    """
    arms = [ArmSamples() for _ in bundles]
    with (progress or Silent()).task("measuring", protocol.blocks * len(arms)) as task:
        for turn in protocol.order(len(arms)):
            with ExitStack() as stack:
                workers = [
                    stack.enter_context(Arm(path, workload, threads=threads, provider=provider, cache=cache))
                    for path in bundles
                ]
                _measure_pair(turn, workers, arms, protocol, task)
    return arms


def _measure_pair(
    turn: list[int], workers: list[Arm], arms: list[ArmSamples], protocol: Protocol, task: Task
) -> None:
    """One block of each arm; both are loaded and warm before the first is timed."""
    for index in turn:
        loaded = workers[index].load(cold=True)
        arms[index].providers = loaded["providers"]
        arms[index].cold_loads += [loaded["seconds"]] if loaded["cold"] else []
    limits = {"iterations": protocol.warmup_iterations, "seconds": protocol.warmup_seconds}
    for index in turn:
        arms[index].warm_ups.append(workers[index].ask("warm_up", **limits))
    for index in turn:
        block = workers[index].ask("block", min_ms=protocol.block_ms)
        arms[index].blocks.append(None if block["suspended"] else block["runs"])
    for index in turn:
        memory = workers[index].ask("memory")
        arms[index].rss_peaks.append(memory["rss_peak_bytes"])
        arms[index].rss_method = memory["method"]
        arms[index].warm_loads.append(workers[index].load(cold=False)["seconds"])
        task.advance(detail=workers[index].bundle.name)
