"""Energy of the work: a counter is read around windows in which one phase is repeated, and around idleness.

After Yang, Adamek and Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", arXiv
2312.02741: differences of a counter, not samples of power, over windows that are long beside its step. Each
turn is a fresh process, first idle with the model loaded and then warm; two arms alternate as in
:mod:`.latency`. Joules for a token or sentence follow, in all and above idle.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ...devices.energy import Meter, MeterLost, NoMeter
from ...devices.state import disturbance, read_state
from ...terminal.progress import Progress, ProgressTask, Silent
from ..records.energy_metrics import STEPS
from ..records.energy_record import IDLE, Energy, EnergyWindow
from .protocol import Arm, Protocol, SuspendWatch
from .work.timed_work import Workload


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
