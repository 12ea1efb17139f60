"""Energy in words: a table for the report, lines for the terminal, and why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ..records import numerals
from ..records.conditions import clip
from ..records.energy_record import Energy
from ..records.record import Measurement
from ..speed.energy_windows import IDLE_WATTS, metric_name
from .account_table import AccountTable
from .join import ResultGroup, ResultRow
from .results_table import MARKS

_NONE = "–"
NOTE = (
    "Joules of {} ({}), counted while the work was repeated for at least {} s; idle is the loaded model at "
    "rest, for as long before it."
)
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


def energy_tables(group: ResultGroup) -> list[AccountTable]:
    """One table of the rows whose energy was counted; none where no row's was."""
    rows = [(row, line.energy) for row in group.rows if (line := row.line("latency")) is not None]
    counted = [(row, energy) for row, energy in rows if energy is not None and energy.kind is not None]
    if not counted:
        return []
    first = counted[0][1]
    beside = list(dict.fromkeys(domain for _, energy in counted for domain in energy.beside))
    columns = ("version and work", "in all", "above idle", "unit", "idle W", "windows", *beside)
    cells = [cell for row, energy in counted for cell in _cells(row, energy, beside)]
    note = NOTE.format(clip(", ".join(first.domains)), clip(first.method), f"{first.window_s:g}")
    return [AccountTable("Energy", note + BESIDE * bool(beside), columns, tuple(cells))]


def _cells(row: ResultRow, energy: Energy, beside: Sequence[str]) -> list[tuple[str, ...]]:
    found = []
    for phase, unit in energy.units.items():
        numbers = [_text(row, metric_name(phase, unit, net=net)) for net in (False, True)]
        others = [_beside(energy, phase, domain) for domain in beside]
        windows = [turn[phase] for turn in energy.turns if phase in turn]
        cells = (*numbers, f"J/{unit}", _text(row, IDLE_WATTS), str(len(windows)), *others)
        found.append((f"{row.subject.scheme}, {phase}", *cells))
    return found


def _text(row: ResultRow, name: str) -> str:
    """A number with the mark of its status."""
    reading = row.reading(name)
    if reading is None or reading.value is None:
        return _NONE
    return f"{MARKS[reading.status]} {numerals.significant(reading.value)}".strip()


def _beside(energy: Energy, phase: str, domain: str) -> str:
    windows = [turn[phase] for turn in energy.turns if phase in turn]
    values = [one.beside[domain] / one.units for one in windows if domain in one.beside and one.units]
    return numerals.significant(median(values)) if values else _NONE
