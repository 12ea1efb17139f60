"""What windows of energy come to: joules of a token or sentence, in all and above idle, and what speaks
against them.

``devices import METER.csv``: joules for lines that were measured while a meter's logger ran, whose file
came afterwards.
"""

import uuid
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from ...devices.energy import MeterLost
from ...devices.meters.logged import METHOD, Sample, between, joules, read_samples
from ...errors import InputError
from . import record as records
from .energy_record import IDLE, Energy, EnergyWindow
from .record import Measurement, Metric, Validity
from .summary import summarize

# A counter is late by up to one step at each end of a window: 2 % at the most.
STEPS = 50
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


def import_meter(log: Path, record: Path) -> list[Measurement]:
    """Append to ``record`` each of its lines that waits for a meter's log, with the joules of ``log``; the
    line without them stays before it, as any older one does.
    """
    samples, lines = read_samples(log), records.read([record])
    known = {_moments(line.energy) for line in lines if line.energy is not None and line.energy.kind}
    waiting = [line for line in lines if _waits(line) and _moments(line.energy) not in known]
    if not waiting:
        raise InputError(
            f"no line of {record} waits for a meter's log",
            fix="measure while the meter logs: EDGEPRESS_METER=later edgepress profile BUNDLE",
        )
    found, missed = [], ""
    for line in waiting:
        try:
            found.append(_counted(line, samples))
        except MeterLost as error:
            missed = error.what
    if not found:
        raise InputError(
            f"{log} has no joules for {record}",
            why=f"{missed}: it holds {_span(samples)}, the work was {_span(_work(waiting))}",
            fix="seconds are counted since 1970 (UTC), by a clock that agrees with that of the machine",
        )
    for line in found:
        records.append(record, line)
    return found


def _waits(line: Measurement) -> bool:
    energy = line.energy
    return energy is not None and energy.method == METHOD and energy.kind is None and bool(energy.turns)


def _moments(energy: Energy | None) -> tuple[float | None, ...]:
    turns = [] if energy is None else energy.turns
    return tuple(window.began for turn in turns for window in turn.values())


def _work(lines: Sequence[Measurement]) -> list[Sample]:
    """The moments of all windows, as samples without watts."""
    every = [
        window for line in lines if line.energy for turn in line.energy.turns for window in turn.values()
    ]
    moments = [at for one in every if one.began for at in (one.began, one.began + one.seconds)]
    return [(at, 0.0) for at in sorted(moments)]


def _span(samples: Sequence[Sample]) -> str:
    return f"{samples[0][0]:.0f} to {samples[-1][0]:.0f} s" if samples else "at no known moment"


def _counted(line: Measurement, samples: Sequence[Sample]) -> Measurement:
    """The line with the joules of its windows, and what follows from them."""
    assert line.energy is not None
    step = median(later[0] - earlier[0] for earlier, later in pairwise(samples))
    turns = [
        {phase: _window(window, samples) for phase, window in turn.items()} for turn in line.energy.turns
    ]
    doubts = list(line.energy.disturbances)
    shortest = min(window.seconds for turn in turns for window in turn.values())
    if shortest < STEPS * step:
        doubts.append(f"the meter's lines are {step:.2g} s apart, in windows of {shortest:.2g} s")
    changes = {"kind": "measured", "update_s": step, "turns": turns, "disturbances": doubts}
    energy = line.energy.model_copy(update={**changes, "reason": "", "fix": ""})
    metrics, values = energy_metrics(energy, seed=int(line.protocol.get("seed", 0)))
    return line.model_copy(
        update={
            "id": str(uuid.uuid4()),
            "energy": energy,
            "metrics": {**line.metrics, **metrics},
            "samples": {**line.samples, **values},
        }
    )


def _window(window: EnergyWindow, samples: Sequence[Sample]) -> EnergyWindow:
    if window.began is None:
        raise MeterLost("its windows have no moments")
    found = joules(between(samples, window.began, window.began + window.seconds))
    return window.model_copy(update={"joules": found})
