"""Energy of the work: a counter is read around windows in which one phase is repeated, and around idleness.

After Yang, Adamek and Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", arXiv
2312.02741: differences of a counter, not samples of power, over windows that are long beside its step. Each
turn is a fresh process, first idle with the model loaded and then warm; two arms alternate as in
:mod:`.latency`. Joules for a token or sentence follow, in all and above idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...devices.energy import Meter, MeterLost, NoMeter
from ...devices.state import disturbance, read_state
from ...terminal import Progress, ProgressTask, Silent
from ..records.energy_record import IDLE, Energy, EnergyWindow
from ..records.record import Metric, Validity
from ..records.summary import summarize
from .arm import Arm
from .protocol import Protocol, SuspendWatch
from .timed_work import Workload

# A counter is late by up to one step at each end of a window: 2 % at the most.
STEPS = 50


@dataclass(frozen=True)
class _Plan:
    meter: Meter
    workload: Workload
    protocol: Protocol
    seconds: float


def measure_energy(
    bundles: Sequence[Path],
    workload: Workload,
    protocol: Protocol,
    meter: Meter | NoMeter,
    *,
    threads: int,
    provider: str = "cpu",
    progress: Progress | None = None,
) -> list[Energy]:
    """Count the energy of one bundle, or of two interleaved, in the order of ``bundles``.

    Without a meter, or where it is lost on the way, nothing is counted and the reason is recorded.

    Raises:
        EdgepressError: what a worker raised, or the manner of its death.
    """
    if isinstance(meter, NoMeter):
        return [uncounted(meter.reason, meter.fix) for _ in bundles]
    plan = _Plan(meter, workload, protocol, max(protocol.energy_seconds, STEPS * meter.update_s))
    turns: list[list[dict[str, EnergyWindow]]] = [[] for _ in bundles]
    before, order = read_state(), list(islice(protocol.turns(len(bundles)), protocol.energy_windows))
    try:
        with (progress or Silent()).task("counting energy", len(order) * len(bundles)) as task:
            for index in (index for turn in order for index in turn):
                arm = Arm(bundles[index], workload, threads=threads, provider=provider)
                turns[index].append(_turn(arm, plan, task))
    except MeterLost as error:
        return [uncounted(error.what, error.fix) for _ in bundles]
    _, disturbances = disturbance(before, read_state())
    return [_counted(plan, found, disturbances) for found in turns]


def uncounted(reason: str, fix: str = "") -> Energy:
    """The record of energy that was not measured."""
    return Energy(method="none", reason=reason, fix=fix)


def _counted(plan: _Plan, turns: list[dict[str, EnergyWindow]], disturbances: list[str]) -> Energy:
    pending = plan.meter.pending
    said = {} if pending is None else {"reason": pending.reason, "fix": pending.fix}
    return Energy(
        kind="measured" if pending is None else None,
        **said,
        **plan.meter.describe(),
        window_s=plan.seconds,
        units=plan.workload.units,
        turns=turns,
        disturbances=disturbances,
    )


def _turn(arm: Arm, plan: _Plan, task: ProgressTask) -> dict[str, EnergyWindow]:
    """A loaded model that rests, and then each of its phases."""
    found: dict[str, EnergyWindow | None] = {}
    with arm as worker:
        worker.load(cold=False)
        found[IDLE] = _window(plan.meter, partial(_rest, plan.seconds))
        limits = {"iterations": plan.protocol.warmup_iterations, "seconds": plan.protocol.warmup_seconds}
        worker.ask("warm_up", **limits)
        for phase in plan.workload.units:
            repeat = partial(worker.ask, "repeat", phase=phase, seconds=plan.seconds)
            found[phase] = _window(plan.meter, repeat)
        task.advance(detail=worker.bundle.name)
    return {name: window for name, window in found.items() if window is not None}


def _rest(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


def _window(meter: Meter, work: Callable[[], dict[str, Any]]) -> EnergyWindow | None:
    """What ``work`` took, with the ``runs`` and ``units`` that it answers; None when the machine slept."""
    watch = SuspendWatch()
    began, before, start = time.time(), meter.read(), time.perf_counter_ns()
    done = work()
    seconds, after = (time.perf_counter_ns() - start) / 1e9, meter.read()
    if watch.suspended():
        return None
    consumed = meter.between(before, after)
    counted = {"joules": consumed.joules, "beside": consumed.beside, "wraps": consumed.wraps}
    return EnergyWindow(seconds=seconds, began=began, **counted, **done)


ENOUGH_WINDOWS = 3
# Windows of one arm that differ by more than this part of their median say little.
WIDE = 0.10
IDLE_WATTS = "idle_w"


def metric_name(phase: str, unit: str, *, net: bool = False) -> str:
    """``decode_j_per_token``, or ``decode_j_per_token_net``: less what idleness would have taken."""
    return f"{phase}_j_per_{unit}{'_net' * net}"


def energy_metrics(energy: Energy, *, seed: int) -> tuple[dict[str, Metric], dict[str, list[float]]]:
    """The metrics and the values they rest on, one of each turn; none where nothing was counted."""
    if energy.kind is None:
        return {}, {}
    metrics: dict[str, Metric] = {}
    samples: dict[str, list[float]] = {}

    def add(name: str, unit: str, windows: Sequence[str], value: Callable[..., float]) -> None:
        whole = [turn for turn in energy.turns if all(window in turn for window in windows)]
        samples[name] = [value(*(turn[window] for window in windows)) for turn in whole]
        metrics[name] = summarize(samples[name], unit, "lower", seed=seed)
        metrics[name].validity = _validity(energy, samples[name])

    for phase, unit in energy.units.items():
        add(metric_name(phase, unit), f"J/{unit}", [phase], _each)
        add(metric_name(phase, unit, net=True), f"J/{unit}", [phase, IDLE], _above)
    if energy.units:
        add(IDLE_WATTS, "W", [IDLE], _watts)
    return metrics, samples


def _watts(window: EnergyWindow) -> float:
    return window.joules / window.seconds


def _each(window: EnergyWindow) -> float:
    return window.joules / window.units


def _above(window: EnergyWindow, idle: EnergyWindow) -> float:
    return (window.joules - _watts(idle) * window.seconds) / window.units


def _validity(energy: Energy, values: Sequence[float]) -> Validity:
    wrong = [] if values else ["the machine slept in every window"]
    still = sum(window.joules == 0 for turn in energy.turns for window in turn.values())
    if still:
        wrong.append(f"impossible: the energy counter stood still in {still} windows")
    elif any(value <= 0 for value in values):
        wrong.append("impossible: the work took no more than idleness")
    return Validity.of(wrong, [*energy.disturbances, *_doubts(values)])


def _doubts(values: Sequence[float]) -> list[str]:
    if not values:
        return []
    if len(values) < ENOUGH_WINDOWS:
        windows = "window" if len(values) == 1 else "windows"
        return [f"only {len(values)} {windows} of energy: at least {ENOUGH_WINDOWS} are needed"]
    middle = sorted(values)[len(values) // 2]
    spread = (max(values) - min(values)) / abs(middle) if middle else 0.0
    return [f"noisy: windows of energy differ by {100 * spread:.0f} %"] if spread > WIDE else []
