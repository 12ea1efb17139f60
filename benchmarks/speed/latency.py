"""Runs one arm or several (fresh processes, warm-up, a timed block in each, loads, peak memory) into metrics.

Each process gives one block, its peak memory, and last one warm load, whose second copy of the model must not
count in the peak. Loads with the page cache dropped, where that can be proven, are a step of their own.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from ...terminal.progress import Progress, ProgressTask, Silent
from ..records.record import Metric
from ..records.summary import summarize
from .protocol import WIDE, Arm, Protocol
from .work.loaded_work import Sample
from .work.timed_work import Quantity, Workload, quantities, speeds

# Beyond this the single observations stay out of the record: its line would grow to megabytes.
KEPT_OBSERVATIONS = 5000


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


# One block of each arm, with what belongs to it.
Round = list[ArmSamples]


def _add(arms: list[ArmSamples], found: Round) -> None:
    for arm, one in zip(arms, found, strict=True):
        for name in ("blocks", "warm_loads", "rss_peaks", "warm_ups"):
            getattr(arm, name).extend(getattr(one, name))
        arm.rss_method, arm.providers = one.rss_method, one.providers


def measure_arms(
    bundles: Sequence[Path],
    workload: Workload,
    protocol: Protocol,
    *,
    threads: int,
    provider: str = "cpu",
    progress: Progress | None = None,
    done: Sequence[Round] = (),
    keep: Callable[[Round], None] | None = None,
) -> list[ArmSamples]:
    """Measure one bundle, or several interleaved; the samples come in the order of ``bundles``.

    Args:
        done: rounds of a run that was cut short, which are not measured again.
        keep: hears of each round when it is done.
    """
    progress, arms = progress or Silent(), [ArmSamples() for _ in bundles]
    turns, started = islice(protocol.turns(len(arms)), len(done), None), time.monotonic()
    for one in done:
        _add(arms, one)

    def measure(task: ProgressTask) -> None:
        with ExitStack() as stack:
            workers = [
                stack.enter_context(Arm(path, workload, threads=threads, provider=provider))
                for path in bundles
            ]
            found = [ArmSamples() for _ in arms]
            _measure_round(next(turns), workers, found, protocol, task)
        _add(arms, found)
        if keep is not None:
            keep(found)

    with progress.task("measuring", protocol.blocks * len(arms)) as task:
        task.advance(len(done) * len(arms))
        for _ in range(len(done), protocol.blocks):
            measure(task)
    # Where all rounds were done before, none has been timed.
    round_seconds = max((time.monotonic() - started) / max(protocol.blocks - len(done), 1), 0.001)
    rounds = int(protocol.most_seconds / round_seconds) - protocol.blocks
    if rounds > 0 and not _all_narrow(arms, workload, protocol):
        with progress.task("measuring on, until the intervals are narrow", rounds * len(arms)) as task:
            while _may_go_on(started, round_seconds, protocol) and not _all_narrow(arms, workload, protocol):
                measure(task)
    return arms


def load_cold(
    bundles: Sequence[Path],
    arms: Sequence[ArmSamples],
    workload: Workload,
    progress: Progress,
    **session: Any,
) -> None:
    """Load each bundle from the disk as often as its arm has blocks, in one process, and note the seconds
    in the arm; not where the page cache cannot be dropped. ``session`` is how it is opened.

    Last of all that is measured: what is dropped may come back in single pages, from which weights are read
    more slowly.
    """
    with progress.task("loading from disk", sum(len(arm.blocks) for arm in arms)) as task:
        for path, arm in zip(bundles, arms, strict=True):
            with Arm(path, workload, **session) as worker:
                for _ in arm.blocks:
                    loaded = worker.load(cold=True)
                    if not loaded["cold"]:
                        break
                    arm.cold_loads.append(loaded["seconds"])
                    task.advance()


def _may_go_on(started: float, round_seconds: float, protocol: Protocol) -> bool:
    """Whether one more round ends within the limit of time."""
    return time.monotonic() - started + round_seconds <= protocol.most_seconds


def _all_narrow(arms: Sequence[ArmSamples], workload: Workload, protocol: Protocol) -> bool:
    """Whether both speeds of every arm are known to a few per cent."""
    found = [summarize_arm(arm, workload, seed=protocol.seed)[0] for arm in arms]
    return all(half_width(metrics[name]) <= WIDE for metrics in found for name in speeds(workload))


def half_width(metric: Metric) -> float:
    """Half of a metric's interval as a part of its value; infinite where either is missing."""
    if metric.ci95 is None or not metric.value:
        return math.inf
    return (metric.ci95[1] - metric.ci95[0]) / 2 / metric.value


def _measure_round(
    turn: list[int], workers: list[Arm], arms: list[ArmSamples], protocol: Protocol, task: ProgressTask
) -> None:
    """One block of each arm; all are loaded and warm before the first is timed."""
    for index in turn:
        arms[index].providers = workers[index].load(cold=False)["providers"]
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


def per_block(arm: ArmSamples, quantity: Quantity) -> list[float | None]:
    """The median over the runs of each block; None for a block in which the machine slept."""
    return [None if runs is None else median(map(quantity.value, runs)) for runs in arm.blocks]


def summarize_arm(
    arm: ArmSamples, workload: Workload, *, seed: int
) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """The metrics of one arm, and the samples they rest on: one value per block, or per process.

    Series of single observations in milliseconds (``tokens_ms``, ``single_ms``, …) are among the samples
    when they are short enough.
    """
    metrics: dict[str, Metric] = {}
    samples: dict[str, list[float]] = {}
    for quantity in quantities(workload):
        name, observed = quantity.name, _observations(arm, quantity.observed)
        samples[name] = [value for value in per_block(arm, quantity) if value is not None]
        metrics[name] = summarize(
            samples[name], quantity.unit, quantity.better, observed=observed or None, seed=seed
        )
        if observed and len(observed) <= KEPT_OBSERVATIONS:
            samples[f"{quantity.observed}_ms"] = observed
    per_process = {
        "load_ms": ("ms", [1000 * seconds for seconds in arm.warm_loads]),
        "load_cold_ms": ("ms", [1000 * seconds for seconds in arm.cold_loads]),
        "rss_peak_bytes": ("bytes", [float(peak) for peak in arm.rss_peaks]),
    }
    for name, (unit, values) in per_process.items():
        samples[name] = values
        metrics[name] = summarize(values, unit, "lower", seed=seed)
    if not arm.cold_loads:
        metrics["load_cold_ms"].reason = "the page cache could not be dropped, or not be proven empty"
    return metrics, samples


def _observations(arm: ArmSamples, name: str) -> list[float]:
    """Every observation of a series in milliseconds, to the nearest 0.1 µs; none for an empty name."""
    blocks = [runs for runs in arm.blocks if name and runs is not None]
    return [round(ns / 1e6, 4) for runs in blocks for run in runs for ns in run[name]]
