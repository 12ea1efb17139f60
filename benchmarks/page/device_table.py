"""Every version beside every device: size and quality once, the speed on each, and which one is recommended
there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..records import conditions
from ..records.conditions import clip, describe, machine, threads
from . import results_table as table
from .conclusion import AGREE, SPEED, column
from .headline import LOSS, headline, speed, why
from .predicted import PredictedDevice, banded
from .result_groups import SIZE, ResultGroup, ResultRow
from .results_table import Cell

LONGEST_NAME = 80


@dataclass(frozen=True)
class DeviceSpeed:
    """A version on a device: its rate, how it compares with the original there, and its mark. Where it is
    ``predicted`` the rate has its band, and nothing is compared.
    """

    rate: Cell
    ratio: str
    recommended: bool
    predicted: bool = False


@dataclass(frozen=True)
class DeviceRow:
    """A version: what does not depend on the device, and its speed on each; ``recommended`` where there is no
    device.
    """

    label: str
    is_baseline: bool
    facts: tuple[Cell, ...]
    speeds: tuple[DeviceSpeed, ...]
    recommended: bool = False


@dataclass(frozen=True)
class DeviceTable:
    """``reasons`` are a device and what is recommended on it, with why."""

    facts: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    unit: str
    rows: tuple[DeviceRow, ...]
    reasons: tuple[tuple[str, str, str], ...]


def views(group: ResultGroup) -> list[ResultGroup]:
    """The group's tables that have a device: one for each device, workload and number of threads."""
    return [one for one in (group, *group.further) if one.example("latency") is not None]


def device_names(group: ResultGroup) -> list[str]:
    """What tells the :func:`views` apart: the machine and the threads, and the workload where these are not
    enough.
    """
    lines = [line for one in views(group) if (line := one.example("latency")) is not None]
    short = [", ".join(filter(None, [clip(machine(line), LONGEST_NAME), threads(line)])) for line in lines]
    counts = Counter(short)
    return [
        clip(describe(line).removeprefix("Latency: ")) if counts[name] > 1 else name
        for name, line in zip(short, lines, strict=True)
    ]


def device_table(group: ResultGroup, predicted: Sequence[PredictedDevice] = ()) -> DeviceTable:
    """The table of a model; without a device it has sizes and quality alone. What is predicted has columns of
    its own, last, where a speed is.
    """
    shown, names = views(group), device_names(group)
    rate = SPEED[group.shown][0]
    predicted = [one for one in predicted if any(one.quantity(key, rate) for key in one.predictions)]
    metrics = [AGREE[group.kind][0], LOSS[group.kind].metric]
    columns = [SIZE, *(column(group, metric) for metric in metrics)]
    rows = [
        DeviceRow(
            "original" if row.is_baseline else label,
            row.is_baseline,
            tuple(table.cell(group, row, one) for one in columns),
            (*(_speed(view, row) for view in shown), *(_expected(group, one, row) for one in predicted)),
            not shown and (best := headline(group)) is not None and _same(best, row),
        )
        for row, (label, _) in zip(group.rows, table.labels(group), strict=True)
        if _is_shown(group, row)
    ]
    heads = tuple((one.title, one.unit) for one in columns)
    return DeviceTable(
        heads,
        (*names, *(f"{one.name}, predicted" for one in predicted)),
        column(group, rate).unit,
        tuple(rows),
        _reasons(group, shown, names),
    )


def _is_shown(group: ResultGroup, row: ResultRow) -> bool:
    """One original is enough: the one that was timed, or the first."""
    if not row.is_baseline:
        return True
    timed = [one for one in group.baselines if one.line("latency") is not None]
    return row is (timed or group.baselines)[0]


def _speed(view: ResultGroup, row: ResultRow) -> DeviceSpeed:
    here = next((one for one in view.rows if _same(one, row)), None)
    if here is None:
        return DeviceSpeed(Cell("–", status="missing"), "", False)
    found, best = speed(here), headline(view)
    rate = SPEED[view.shown][0]
    noisy = f"{table.MARKS['suspect']} " if view.doubt(here, rate) else ""
    ratio = "" if found is None else f"{noisy}{conditions.times(found.ratio)}"
    recommended = best is not None and _same(best, row)
    return DeviceSpeed(table.cell(view, here, column(view, rate)), ratio, recommended)


def _expected(group: ResultGroup, device: PredictedDevice, row: ResultRow) -> DeviceSpeed:
    found = device.quantity(row.subject.manifest_sha256, SPEED[group.shown][0])
    return DeviceSpeed(Cell(banded(found), status="missing" if found is None else "valid"), "", False, True)


def _same(one: ResultRow, other: ResultRow) -> bool:
    return one.subject.manifest_sha256 == other.subject.manifest_sha256


def _reasons(
    group: ResultGroup, shown: Sequence[ResultGroup], names: Sequence[str]
) -> tuple[tuple[str, str, str], ...]:
    pairs = list(zip(names, shown, strict=True)) or [("", group)]
    return tuple(
        (name, best.subject.scheme, why(view)) for name, view in pairs if (best := headline(view)) is not None
    )
