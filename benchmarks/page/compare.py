"""Measured runs side by side in the terminal: one table a model, readable at 100 columns.

A doubtful number is never shown bare: it carries ``≈`` (suspect: noisy) or ``✗`` (invalid) in the text, so
that the mark survives pipes and colour-blind terminals, and a note under the table says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UnknownName
from ..records.conditions import describe
from ..records.record import Measurement, read
from . import results_table as table
from .account_table import why_uncounted
from .join import join
from .result_groups import COLUMNS, DEVICE, ENERGY, MetricReading, ResultGroup, ResultRow, aspect_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

SORTS: dict[str, tuple[str, ...]] = {
    "size": ("size",),
    "quality": ("kl", "cosine", "label_kl"),
    "speed": ("decode_tps", "sentences_per_second", "images_per_second"),
    "memory": ("rss_peak_bytes",),
    "energy": tuple(column.key for column in ENERGY.values()),
    "name": (),
}
WIDTH = 100
# What a narrow terminal can do without, first to last.
EXPENDABLE = (
    *(
        "device_bytes",
        "prefill_tps",
        "latency_ms",
        "top1_agreement",
        "neighbour_overlap",
        "ratio",
        "rss_peak_bytes",
    ),
    *(column.key for column in ENERGY.values()),
)
STYLES = {"valid": "", "suspect": "yellow", "invalid": "red strike", "missing": "dim"}


def compare_runs(runs: Sequence[Path], *, sort: str = "size") -> list[ResultGroup]:
    """Read runs and group their rows, sorted by one of :data:`SORTS`: the best comes first but for
    ``size``.
    """
    if sort not in SORTS:
        raise UnknownName("order", sort, SORTS)
    return [_sorted(group, sort) for group in join(read(runs))]


def _sorted(group: ResultGroup, sort: str) -> ResultGroup:
    if sort == "size":
        return group
    if sort == "name":
        rows = sorted(group.rows, key=lambda row: (row.subject.scheme, row.subject.name))
        return replace(group, rows=tuple(rows))
    column = next(column for column in COLUMNS[group.shown] if column.key in SORTS[sort])
    sign = 1 if column.better == "lower" else -1

    def order(row: ResultRow) -> tuple[bool, float]:
        value = row.usable(column.metric or "")
        return value is None, 0.0 if value is None else sign * value

    return replace(group, rows=tuple(sorted(group.rows, key=order)))


def document(groups: Sequence[ResultGroup]) -> dict[str, Any]:
    """The comparison as one JSON-ready document."""
    return {"schema": "edgepress.comparison/1", "groups": [_group_document(group) for group in groups]}


def _group_document(group: ResultGroup) -> dict[str, Any]:
    shown = table.build(group)
    return {
        "source": group.source,
        "kind": group.kind,
        "conditions": [describe(line) for line in _examples(group)],
        "rows": [_row_document(group, entry) for entry in shown.rows],
        "notes": list(shown.notes),
        "energy_not_measured": why_uncounted(group),
        "further": [_group_document(other) for other in group.further],
    }


def _row_document(group: ResultGroup, entry: table.TableRow) -> dict[str, Any]:
    subject = entry.row.subject
    metrics = {}
    for line in entry.row.lines:
        for name, metric in line.metrics.items():
            reading = MetricReading(metric, line)
            known = metric.model_dump(exclude_defaults=True, mode="json") | {"value": metric.value}
            known |= {"reasons": metric.validity.reasons} if metric.validity else {}
            metrics[name] = known | {"validity": reading.status, "measurement": line.id}
    return {
        "name": subject.name,
        "manifest_sha256": subject.manifest_sha256,
        "scheme": subject.scheme,
        "format": subject.format,
        "baseline": entry.row.is_baseline,
        "disk_bytes": subject.disk_bytes,
        "measured_with": entry.measured_with,
        "times_smaller": group.ratio(entry.row),
        "pareto": entry.on_front,
        "validity": entry.row.status,
        "reasons": [
            f"{aspect_of(line)}: {reason}" for line in entry.row.lines for reason in line.validity.reasons
        ],
        "metrics": metrics,
    }


def _examples(group: ResultGroup) -> list[Measurement]:
    return [line for line in (group.example("quality"), group.example("latency")) if line is not None]


def render(groups: Sequence[ResultGroup], *, width: int = WIDTH) -> RenderableType:
    """The tables for a terminal of ``width`` columns; a narrow one leaves out columns and says so."""
    from rich.console import Group as Stack

    parts: list[RenderableType] = []
    for group in groups:
        parts += [part for one in (group, *group.further) for part in _render_group(one, width)]
    return Stack(*parts)


def as_text(groups: Sequence[ResultGroup], *, width: int = WIDTH) -> str:
    """The tables as plain text, for a pipe or a file."""
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(render(groups, width=width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _render_group(group: ResultGroup, width: int) -> list[RenderableType]:
    from rich.console import Console
    from rich.text import Text

    shown = table.build(group)
    alike = [DEVICE.title] if _as_shipped(shown) else []
    grid, hidden = _grid(shown, alike), []
    measuring = Console(width=1000, markup=False, emoji=False)
    for key in EXPENDABLE:
        if measuring.measure(grid).maximum <= width:
            break
        hidden += [
            column.title for column in shown.columns if column.key == key and column.title not in alike
        ]
        grid = _grid(shown, [*alike, *hidden])
    parts: list[RenderableType] = [Text(group.source, style="bold"), grid]
    parts += [Text(describe(line), style="dim") for line in _examples(group)]
    parts += [Text(line, style="dim") for line in _runners(shown)]
    if alike:
        parts.append(Text("on device: after the first run the same bytes as shipped", style="dim"))
    parts += [Text(line, style="dim") for line in _energy_notes(group, shown)]
    if any(entry.on_front for entry in shown.rows):
        parts.append(Text(f"◆ no other row is better in {shown.front} at once", style="dim"))
    if any(cell.interval for entry in shown.rows for cell in entry.cells):
        parts.append(Text("±: the longer arm of the 95 % confidence interval", style="dim"))
    if hidden:
        parts.append(Text(f"not shown at this width: {', '.join(hidden)}", style="dim"))
    parts += [Text(f"[{number}] {note}", style="yellow") for number, note in enumerate(shown.notes, 1)]
    return [*parts, Text("")]


def _as_shipped(shown: table.Table) -> bool:
    """Whether each version that ran has as many bytes on the device as it was shipped with."""
    pairs = [
        {column.key: cell.value for column, cell in entry.columns(shown.columns)} for entry in shown.rows
    ]
    sizes = [(found["size"], found[DEVICE.key]) for found in pairs if found.get(DEVICE.key) is not None]
    return bool(sizes) and all(shipped == kept for shipped, kept in sizes)


def _runners(shown: table.Table) -> list[str]:
    """What the speeds were measured with: a line, or one for each where they differ."""
    found: dict[str, list[str]] = {}
    for entry in shown.rows:
        if entry.measured_with:
            found.setdefault(entry.measured_with, []).append(entry.label)
    if len(found) == 1:
        return [f"speed with: {next(iter(found))}"]
    return [f"speed with: {runner}: {', '.join(labels)}" for runner, labels in found.items()]


def _energy_notes(group: ResultGroup, shown: table.Table) -> list[str]:
    partly = any(column in ENERGY.values() for column in shown.columns)
    title = "energy, where it is missing" if partly else "energy: not measured"
    return [f"{title}: {why}" for why in why_uncounted(group)]


def _grid(shown: table.Table, hidden: Sequence[str]) -> RichTable:
    from rich.text import Text

    from ...terminal.tables import FittingTable

    grid = FittingTable(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True, header_style="dim"
    )
    grid.add_column("scheme", overflow="fold", min_width=16)
    for column in shown.columns:
        if column.title not in hidden:
            grid.add_column(f"{column.title}\n{column.unit}".strip(), justify="right", no_wrap=True)
    for entry in shown.rows:
        label = Text(entry.label, style="" if entry.row.is_baseline else "bold")
        label.append(" ◆" if entry.on_front else "", style="green")
        label.append(f"\n{entry.detail}", style="dim")
        cells = [cell for column, cell in entry.columns(shown.columns) if column.title not in hidden]
        grid.add_row(label, *map(_render_cell, cells))
    return grid


def _render_cell(cell: table.Cell) -> RenderableType:
    from rich.text import Text

    text = Text(justify="right")
    mark = table.MARKS[cell.status]
    if mark:
        text.append(f"{mark} ", style=STYLES[cell.status].split()[0])
    text.append(cell.text, style="bold green" if cell.best else STYLES[cell.status])
    if cell.note is not None:
        text.append(f" [{cell.note + 1}]", style="yellow")
    if cell.plus_minus:
        text.append(f"\n{cell.plus_minus}", style="dim")
    return text
