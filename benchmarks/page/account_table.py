"""Details of a measurement as tables of text, the same in the terminal and in the report: the account of
every node's time and bytes, and energy.

Grams of CO₂ from joules that were counted and the factor of a grid. Who reads a page must be able to check
the factor: it has a source and a year.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...errors import InputError
from ..records import conditions
from ..records.conditions import clip
from ..records.energy_metrics import IDLE_WATTS, metric_name
from ..records.energy_record import Energy
from ..records.record import Measurement
from .result_groups import ResultGroup, ResultRow
from .results_table import MARKS

MOST_ROWS = 12
LEAST_SHARE = 0.002
_STEPS = {"prefill": "the prompt", "decode": "one token", "batch": "one batch", "single": "one sentence"}
_COUNTED = ("ms", "share", "nodes", "weight_bytes", "kv_bytes")
_NONE = "–"
_JOULES_PER_KWH = 3.6e6
_MOST = 2000.0  # no grid emits more than burning lignite alone
_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*g/kWh\s*,\s*(\S.*?)\s*,\s*((?:19|20)[0-9]{2})\s*")


@dataclass(frozen=True)
class AccountTable:
    """Cells of text below a title; the first column has words, the others numbers."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def account_tables(per_op: dict[str, Any]) -> list[AccountTable]:
    """For each phase where its time goes by part and by operator, then all layers side by side."""
    phases, bandwidth = per_op["phases"], per_op["bandwidth"]
    rate = bandwidth["gb_per_second"] if bandwidth else None
    tables = []
    for name, phase in phases.items():
        title = f"{name}: {_STEPS.get(name, name)} in {conditions.significant(phase['wall_ms'])} ms"
        tables.append(_shares(title, _account_text(phase, rate), "part", phase["by_part"]))
        tables.append(_shares(f"{name} by operator", "", "op", phase["by_op"]))
    return [*tables, _layers(phases)]


def _shares(title: str, note: str, key: str, rows: Sequence[dict[str, Any]]) -> AccountTable:
    shown = [row for row in rows[:MOST_ROWS] if row["share"] >= LEAST_SHARE]
    rest = rows[len(shown) :]
    cells = [(row[key], *_numbers(row)) for row in shown]
    if rest:
        total = {key: sum(row[key] for row in rest) for key in _COUNTED}
        missing = [row["missing_ms"] for row in rest]
        total |= {"gb_per_second": None, "fraction": None}
        total["missing_ms"] = None if None in missing else sum(missing)
        cells.append((f"{len(rest)} others", *_numbers(total)))
    columns = ("operator" if key == "op" else key, "ms", "share", "MB", "GB/s", "of roof", "missing")
    return AccountTable(title, note, columns, tuple(cells))


def _numbers(row: dict[str, Any]) -> tuple[str, ...]:
    moved = row["weight_bytes"] + row["kv_bytes"]
    return (
        _short(row["ms"]),
        f"{conditions.percent(row['share'])} %",
        _short(moved / 1e6 if moved else None),
        _short(row["gb_per_second"]),
        _NONE if row["fraction"] is None else f"{100 * row['fraction']:.0f} %",
        _short(row["missing_ms"]),
    )


def _short(value: float | None) -> str:
    """Three digits of which at most three are decimals."""
    if value is None:
        return _NONE
    return conditions.fixed(value, 3) if abs(value) < 1 else conditions.significant(value)


def _account_text(phase: dict[str, Any], gb_per_second: float | None) -> str:
    """What the kernels do not account for, and what the bandwidth does not."""
    wall, between = phase["wall_ms"], phase["between_ms"]
    kernels = f"{phase['nodes']} kernels take {conditions.significant(phase['kernel_ms'])} ms"
    if between < 0:
        text = f"{kernels} under the profiler, which slows them: more than the step itself"
    else:
        fraction = f"{100 * between / wall:.0f} %"
        text = f"{kernels}; {conditions.significant(between)} ms ({fraction}) pass between them"
    text += f". Moved: {conditions.megabytes(phase['weight_bytes'])} MB of weights"
    if phase["kv_bytes"]:
        text += f" and {conditions.megabytes(phase['kv_bytes'])} MB of keys and values"
    if gb_per_second is None or phase["missing_ms"] is None:
        return f"{text}."
    moved = (phase["weight_bytes"] + phase["kv_bytes"]) / gb_per_second / 1e6
    text += f"; at the {conditions.significant(gb_per_second)} GB/s measured here they need "
    text += f"{conditions.significant(moved)} ms"
    if (compute := phase.get("compute_ms", 0.0)) > moved:
        text += f". {conditions.significant(phase['multiply_adds'] / 1e9)} G multiply-adds need "
        text += f"{conditions.significant(compute)} ms at the rate of the fastest product of their kind"
    if phase["missing_ms"] <= 0:
        return f"{text}, more than it took: that rate was measured too low, as beside other work."
    return f"{text}, so {conditions.significant(phase['missing_ms'])} ms are missing."


def _layers(phases: dict[str, Any]) -> AccountTable:
    columns = ["layer"]
    cells: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, phase in phases.items():
        columns += [f"{name} ms", "share", "MB", "of roof"]
        for row in phase["by_layer"]:
            cells.setdefault(row["layer"], {})[name] = _layer_numbers(row)
    empty = (_NONE,) * 4
    rows = [
        (layer.rpartition(".")[2], *(cell for name in phases for cell in found.get(name, empty)))
        for layer, found in sorted(cells.items(), key=lambda item: _order(item[0]))
    ]
    return AccountTable("by layer", "", tuple(columns), tuple(rows))


def _order(layer: str) -> tuple[bool, int]:
    """By number; what is shared by all layers has none, and comes last."""
    number = layer.rpartition(".")[2]
    return not number.isdigit(), int(number) if number.isdigit() else 0


def _layer_numbers(row: dict[str, Any]) -> tuple[str, ...]:
    ms, share, moved, _, fraction, _ = _numbers(row)
    return ms, share, moved, fraction


NOTE = (
    "Joules of {} ({}), counted while the work was repeated for at least {} s; idle is the loaded model at "
    "rest, for as long before it."
)
UNITS = 1000
BESIDE = " Domains that overlap with these or lie outside are shown, and never added."


def energy_remark(line: Measurement) -> list[str]:
    """How the energy of a line was counted and what to doubt about it; or why it was not, and the way out."""
    energy = line.energy
    if energy is None:
        return []
    if energy.kind is None:
        return [f"energy: not measured: {energy.in_words}"]
    count = "1 window" if len(energy.turns) == 1 else f"{len(energy.turns)} windows"
    how = f"{count} of at least {energy.window_s:g} s for each, after as long idle; net is above idle"
    found = [f"energy: {', '.join(energy.domains)} ({energy.method}), {how}"]
    doubts = [(name, one.validity) for name, one in line.metrics.items() if one.validity is not None]
    by_doubt: dict[str, list[str]] = {}
    for name, doubt in doubts:
        if doubt.status != "valid":
            by_doubt.setdefault(f"{doubt.status}: {'; '.join(doubt.reasons)}", []).append(name)
    return [*found, *(f"{', '.join(names)}: {text}" for text, names in by_doubt.items())]


def why_uncounted(group: ResultGroup) -> list[str]:
    """The reasons that the lines of a group give for having no energy, each once."""
    energies = [line.energy for row in group.rows for line in row.lines if line.energy is not None]
    return list(dict.fromkeys(clip(energy.in_words) for energy in energies if energy.kind is None))


def energy_tables(group: ResultGroup, grid: Grid | None = None) -> list[AccountTable]:
    """One table of the rows whose energy was counted, with grams of CO₂ where the ``grid`` is known; none
    where no row's was.
    """
    rows = [(row, line.energy) for row in group.rows if (line := row.line("latency")) is not None]
    counted = [(row, energy) for row, energy in rows if energy is not None and energy.kind is not None]
    if not counted:
        return []
    first = counted[0][1]
    beside = list(dict.fromkeys(domain for _, energy in counted for domain in energy.beside))
    columns = ("version and work", "in all", "above idle", "unit", "idle W", "windows", *beside)
    columns += (f"g CO₂ a {UNITS:,}",) if grid else ()
    cells = [cell for row, energy in counted for cell in _cells(row, energy, beside, grid)]
    note = NOTE.format(clip(", ".join(first.domains)), clip(first.method), f"{first.window_s:g}")
    note += BESIDE * bool(beside) + (f" CO₂: joules in all × {grid}, calculated." if grid else "")
    return [AccountTable("Energy", note, columns, tuple(cells))]


def _cells(row: ResultRow, energy: Energy, beside: Sequence[str], grid: Grid | None) -> list[tuple[str, ...]]:
    found = []
    for phase, unit in energy.units.items():
        numbers = [_text(row, metric_name(phase, unit, net=net)) for net in (False, True)]
        others = [_beside(energy, phase, domain) for domain in beside]
        windows = [turn[phase] for turn in energy.turns if phase in turn]
        cells = (*numbers, f"J/{unit}", _text(row, IDLE_WATTS), str(len(windows)), *others)
        cells += (_grams(row, metric_name(phase, unit), grid),) if grid else ()
        found.append((f"{row.subject.scheme}, {phase}", *cells))
    return found


def _grams(row: ResultRow, name: str, grid: Grid) -> str:
    reading = row.reading(name)
    if reading is None or reading.value is None:
        return _NONE
    return f"{MARKS[reading.status]} {conditions.significant(grid.grams(UNITS * reading.value))}".strip()


def _text(row: ResultRow, name: str) -> str:
    """A number with the mark of its status."""
    reading = row.reading(name)
    if reading is None or reading.value is None:
        return _NONE
    return f"{MARKS[reading.status]} {conditions.significant(reading.value)}".strip()


def _beside(energy: Energy, phase: str, domain: str) -> str:
    windows = [turn[phase] for turn in energy.turns if phase in turn]
    values = [one.beside[domain] / one.units for one in windows if domain in one.beside and one.units]
    return conditions.significant(median(values)) if values else _NONE


@dataclass(frozen=True)
class Grid:
    """Grams of CO₂ for a kilowatt-hour, who says so, and of which year."""

    grams_per_kwh: float
    source: str
    year: int

    def grams(self, joules: float) -> float:
        """Of so many joules."""
        return joules / _JOULES_PER_KWH * self.grams_per_kwh

    def __str__(self) -> str:
        return f"{self.grams_per_kwh:g} g/kWh ({self.source}, {self.year})"


def parse_grid(text: str) -> Grid:
    """``380 g/kWh, the agency that says so, 2023``."""
    found = _FORM.fullmatch(text)
    if found is None or float(found[1]) > _MOST:
        raise InputError(
            f"{text[:80]!r} is no factor of a grid",
            why=f"it needs grams of CO₂ for a kilowatt-hour (up to {_MOST:g}), a source and a year",
            fix="write it so: --grid '380 g/kWh, the agency that says so, 2023'",
        )
    return Grid(float(found[1]), found[2][:120], int(found[3]))
