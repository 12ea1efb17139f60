"""The one table of results, as cells: the terminal and the page show the same columns, digits and marks.

A number from an invalid line keeps its digits but carries the mark, and counts neither for the best of its
column nor for the Pareto front.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..records.conditions import clip, measured_with
from ..records.record import Measurement, Metric
from .headline import pareto_front
from .result_groups import (
    ASPECT_NAMES,
    COLUMNS,
    DEVICE,
    FRONT,
    Column,
    MetricReading,
    ResultGroup,
    ResultRow,
    aspect_of,
)

CellStatus = Literal["valid", "suspect", "invalid", "missing"]
MARKS: dict[str, str] = {"valid": "", "suspect": "≈", "invalid": "✗", "missing": ""}


@dataclass(frozen=True)
class Cell:
    """One number as text. ``note`` indexes the table's notes.

    ``interval`` is the 95 % confidence interval from end to end; ``plus_minus`` is the longer of its two
    arms, for where there is no room.
    """

    text: str
    value: float | None = None
    interval: str = ""
    plus_minus: str = ""
    status: CellStatus = "valid"
    note: int | None = None
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A row with its label, what its speed was measured with, its cells in the order of the columns and
    whether it is on the Pareto front.
    """

    label: str
    detail: str
    measured_with: str
    row: ResultRow
    cells: tuple[Cell, ...]
    on_front: bool

    def columns(self, columns: Sequence[Column]) -> list[tuple[Column, Cell]]:
        """The cells, each with its column."""
        return list(zip(columns, self.cells, strict=True))


@dataclass(frozen=True)
class Table:
    """What is shown of a group. ``notes`` are numbered from 1 in the order of the list."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    front: str


def build(group: ResultGroup) -> Table:
    """The table of a group; columns that no row has a number for are left out."""
    notes = _notes(group)
    columns = tuple(
        column
        for column in COLUMNS[group.shown]
        if any(_value(group, row, column) is not None for row in group.rows)
    )
    best = {column.key: _best(group, column) for column in columns}
    front = _front(group)
    rows = []
    for position, row in enumerate(group.rows):
        cells = tuple(cell(group, row, column, notes, best[column.key]) for column in columns)
        label, detail = labels(group)[position]
        timed = row.line("latency")
        runner = clip(measured_with(timed)) if timed is not None else ""
        rows.append(TableRow(label, detail, runner, row, cells, position in front and not row.is_baseline))
    return Table(columns, tuple(rows), tuple(notes), FRONT[group.shown][1])


def labels(group: ResultGroup) -> list[tuple[str, str]]:
    """For each row its scheme, and beside it what distinguishes it from the others."""
    schemes = [row.subject.scheme for row in group.rows]
    kinds = Counter((row.subject.scheme, row.subject.format) for row in group.rows)
    found = []
    for row, scheme in zip(group.rows, schemes, strict=True):
        made = {"hf": "checkpoint", "onnx": "ONNX"}[row.subject.format]
        detail = f"original, {made}" if row.is_baseline else made
        if kinds[(scheme, row.subject.format)] > 1:
            detail = f"{row.subject.name}, {made}"
        found.append((scheme, detail))
    return found


def _value(group: ResultGroup, row: ResultRow, column: Column) -> float | None:
    if column.key == "size":
        return float(row.subject.disk_bytes)
    if column.key == "ratio":
        return group.ratio(row)
    reading = row.reading(column.metric or "")
    return None if reading is None else reading.value


def cell(
    group: ResultGroup,
    row: ResultRow,
    column: Column,
    notes: Sequence[str] = (),
    best: float | None = None,
) -> Cell:
    """One number of a row; ``notes`` are the sentences that it may point to, ``best`` is the column's."""
    value = _value(group, row, column)
    reading = None if column.metric is None else row.reading(column.metric)
    if value is None:
        reason = reading.metric.reason if reading is not None else ""
        return Cell("–", status="missing", note=_note_of(notes, _missing(group, row, column, reason)))
    if reading is None or column is DEVICE:  # bytes of files are what they are, however noisy the machine
        return Cell(column.text(value), value)
    return Cell(
        column.text(value),
        value,
        *_interval(reading.metric, value, column),
        status=reading.status,
        note=_note_of(notes, _why(group, row, column, reading)),
        best=value == best
        and not row.is_baseline
        and reading.status == "valid"
        and len(group.compressed) > 1,
    )


def _interval(metric: Metric, value: float, column: Column) -> tuple[str, str]:
    if metric.ci95 is None or not all(math.isfinite(end) for end in metric.ci95):
        return "", ""
    return column.interval(value, metric.ci95)


def _best(group: ResultGroup, column: Column) -> float | None:
    """The best valid value among the compressed rows."""
    if column.metric is None:
        return None
    readings = [row.reading(column.metric) for row in group.compressed]
    values = [r.value for r in readings if r is not None and r.status == "valid" and r.value is not None]
    if not values:
        return None
    return min(values) if column.better == "lower" else max(values)


def _front(group: ResultGroup) -> set[int]:
    """Positions of the rows that nobody beats; rows that lack one of the objectives take no part."""
    columns = {column.key: column for column in COLUMNS[group.shown]}
    objectives = [columns[key] for key in FRONT[group.shown][0]]
    points: dict[int, list[float]] = {}
    for position, row in enumerate(group.rows):
        usable = [
            float(row.subject.disk_bytes) if c.metric is None else row.usable(c.metric) for c in objectives
        ]
        values = [value for value in usable if value is not None]
        if len(values) == len(objectives):
            points[position] = [
                v if c.better == "lower" else -v for v, c in zip(values, objectives, strict=True)
            ]
    positions = list(points)
    return {positions[i] for i in pareto_front(list(points.values()))} if len(points) > 1 else set()


def _notes(group: ResultGroup) -> list[str]:
    """The sentences under the table: one for every doubtful line, one for every number that has a reason to
    lack.
    """
    found: list[str] = []
    for row in group.rows:
        for line in row.lines:
            if line.validity.status != "valid":
                found.append(_doubt(group, row, line))
        for column in COLUMNS[group.shown]:
            reading = None if column.metric is None else row.reading(column.metric)
            if reading is not None and column is not DEVICE:
                found.append(_why(group, row, column, reading))
            if reading is not None and reading.value is None:
                found.append(_missing(group, row, column, reading.metric.reason))
    return list(dict.fromkeys(text for text in found if text))


def _why(group: ResultGroup, row: ResultRow, column: Column, reading: MetricReading) -> str:
    """Why a number is doubtful: by what is known of it alone, else by its line; empty when it is not."""
    if reading.status == "valid":
        return ""
    own = reading.metric.validity
    if own is None or own.status != reading.status:
        return _doubt(group, row, reading.line)
    return f"{_name(group, row)}, {column.title}: {own.status}: {'; '.join(own.reasons)}"


def _doubt(group: ResultGroup, row: ResultRow, line: Measurement) -> str:
    """Noisy lines of one aspect share a sentence; an invalid line has its own."""
    aspect, status = aspect_of(line), line.validity.status
    if status != "suspect":
        return f"{_name(group, row)}, {ASPECT_NAMES[aspect]}: {status}: {_reasons(line)}"
    alike = [
        (one, other)
        for one in group.rows
        for other in one.lines
        if other.validity.status == status and aspect_of(other) == aspect
    ]
    said = "; ".join(f"{_name(group, one)}: {_reasons(other)}" for one, other in alike)
    return f"{ASPECT_NAMES[aspect]}, {status}: {said}"


def _reasons(line: Measurement) -> str:
    return "; ".join(line.validity.reasons) or "no reason was recorded"


def _missing(group: ResultGroup, row: ResultRow, column: Column, reason: str) -> str:
    return f"{_name(group, row)}, {column.title}: not available: {reason}" if reason else ""


def _name(group: ResultGroup, row: ResultRow) -> str:
    label, detail = labels(group)[group.rows.index(row)]
    return f"{label} ({detail})"


def _note_of(notes: Sequence[str], text: str) -> int | None:
    return notes.index(text) if text in notes else None


def short_labels(group: ResultGroup) -> list[str]:
    """The scheme where it distinguishes a row from the others, else the scheme with its detail."""
    names = labels(group)
    schemes = [scheme for scheme, _ in names]
    return [
        "original" if row.is_baseline else scheme if schemes.count(scheme) == 1 else f"{scheme}, {detail}"
        for row, (scheme, detail) in zip(group.rows, names, strict=True)
    ]
