"""The account of every node as tables of text, the same in the terminal and in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..records import numerals

MOST_ROWS = 12
LEAST_SHARE = 0.002
_STEPS = {"prefill": "the prompt", "decode": "one token", "batch": "one batch", "single": "one sentence"}
_COUNTED = ("ms", "share", "nodes", "weight_bytes", "kv_bytes")
_NONE = "–"


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
        title = f"{name}: {_STEPS.get(name, name)} in {numerals.significant(phase['wall_ms'])} ms"
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
        f"{numerals.percent(row['share'])} %",
        _short(moved / 1e6 if moved else None),
        _short(row["gb_per_second"]),
        _NONE if row["fraction"] is None else f"{100 * row['fraction']:.0f} %",
        _short(row["missing_ms"]),
    )


def _short(value: float | None) -> str:
    """Three digits of which at most three are decimals."""
    if value is None:
        return _NONE
    return numerals.fixed(value, 3) if abs(value) < 1 else numerals.significant(value)


def _account_text(phase: dict[str, Any], gb_per_second: float | None) -> str:
    """What the kernels do not account for, and what the bandwidth does not."""
    wall, between = phase["wall_ms"], phase["between_ms"]
    kernels = f"{phase['nodes']} kernels take {numerals.significant(phase['kernel_ms'])} ms"
    if between < 0:
        text = f"{kernels} under the profiler, which slows them: more than the step itself"
    else:
        text = (
            f"{kernels}; {numerals.significant(between)} ms ({100 * between / wall:.0f} %) pass between them"
        )
    text += f". Moved: {numerals.megabytes(phase['weight_bytes'])} MB of weights"
    if phase["kv_bytes"]:
        text += f" and {numerals.megabytes(phase['kv_bytes'])} MB of keys and values"
    if gb_per_second is None or phase["missing_ms"] is None:
        return f"{text}."
    text += f"; at the {numerals.significant(gb_per_second)} GB/s measured here they need "
    text += f"{numerals.significant(wall - phase['missing_ms'])} ms"
    return f"{text}, so {numerals.significant(phase['missing_ms'])} ms are missing."


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
