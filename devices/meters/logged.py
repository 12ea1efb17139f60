"""A meter at the plug, or any other whose logger writes a CSV file while the work is measured.

``EDGEPRESS_METER`` names the file. Its first line names the columns: ``seconds`` (since 1970) and ``watts``,
in any order and among others. Power between two lines is that of a straight line. What a meter at the plug
counts is the whole machine's. Only a file that grows is believed. Where the variable says ``later``, the
moments of the work are recorded and the file is imported afterwards (``devices import``).
"""

import csv
import math
import os
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from ..energy import Counter, Meter, MeterLost, NoMeter

DEVICE = "cpu"
VARIABLE = "EDGEPRESS_METER"
COLUMNS = ("seconds", "watts")
LATER, METHOD = "later", "logged_csv"
Sample = tuple[float, float]  # seconds since 1970, and watts
# Windows are long enough for a logger that writes a line a second.
_LATER_STEP_S = 1.0
_PENDING = NoMeter(
    "the meter's log is still to be imported", "edgepress devices import METER.csv --record RUN.jsonl"
)
_MOST_BYTES, _LEAST_SAMPLES, _STALE_STEPS, _MOST_STEP_S = 64 << 20, 3, 10, 60.0


def find() -> Meter | NoMeter | None:
    """The meter whose file is named; None where none is."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name == LATER:
        return Meter(METHOD, (Counter("meter", lambda: 0),), (), _LATER_STEP_S, pending=_PENDING)
    try:
        samples = read_samples(Path(name))
    except MeterLost as error:
        return NoMeter(f"{VARIABLE}: {error.what}", error.fix)
    step = median(later - earlier for (earlier, _), (later, _) in pairwise(samples))
    if step > _MOST_STEP_S or time.time() - samples[-1][0] > _STALE_STEPS * step:
        fix = "start the meter's logger before, and let it write while edgepress measures"
        return NoMeter(f"{VARIABLE}: {name} does not grow, or by less than a line a minute", fix)
    return Meter(METHOD, (Counter("meter", partial(_microjoules, Path(name))),), (), step)


def _microjoules(path: Path) -> int:
    return round(1e6 * joules(read_samples(path)))


def joules(samples: Iterable[Sample]) -> float:
    """What passed between the first sample of seconds and watts and the last."""
    return sum(
        (later[0] - earlier[0]) * (later[1] + earlier[1]) / 2 for earlier, later in pairwise(list(samples))
    )


def between(samples: Sequence[Sample], begin: float, end: float) -> list[Sample]:
    """The samples from one moment to another, with those of both moments between their neighbours."""
    if not samples or begin < samples[0][0] or end > samples[-1][0]:
        raise MeterLost("the meter's log does not reach over the work")
    times, watts = zip(*samples, strict=True)
    inside = [sample for sample in samples if begin < sample[0] < end]
    edges = [(moment, float(np.interp(moment, times, watts))) for moment in (begin, end)]
    return [edges[0], *inside, edges[1]]


def read_samples(path: Path) -> list[Sample]:
    """Seconds and watts, in order."""
    fix = f"a CSV file with the columns {' and '.join(COLUMNS)}, at least {_LEAST_SAMPLES} lines, in order"
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise MeterLost(f"{path} is no file of up to {_MOST_BYTES >> 20} MiB", fix=fix)
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be half written
        found = [
            (float(row[COLUMNS[0]]), float(row[COLUMNS[1]])) for row in csv.DictReader(whole.splitlines())
        ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise MeterLost(f"{path} is no log of a meter", why=str(error)[:200], fix=fix) from None
    sound = all(math.isfinite(at) and math.isfinite(watts) and 0 <= watts < 1e6 for at, watts in found)
    if len(found) < _LEAST_SAMPLES or not sound or any(a >= b for (a, _), (b, _) in pairwise(found)):
        raise MeterLost(f"{path} is no log of a meter", fix=fix)
    return found
