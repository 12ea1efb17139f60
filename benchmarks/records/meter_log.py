"""``devices import METER.csv``: joules for lines that were measured while a meter's logger ran, whose file
came afterwards.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from ...devices.energy import MeterLost
from ...devices.meters.logged import METHOD, Sample, between, joules, read_samples
from ...errors import InputError
from . import record as records
from .energy_metrics import STEPS, energy_metrics
from .energy_record import Energy, EnergyWindow
from .record import Measurement


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
