"""The plan of ``edgepress compress --dry-run`` as it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table

from ..files.disk import disk_size
from ..runtime.session.needs import gigabytes, time_range
from ..terminal.tables import FittingTable

if TYPE_CHECKING:
    from ..compress.plan import Plan


def shown_plan(plan: Plan, predicted: str) -> Group:
    """The passes as a table, and below it what they need, as plans of other verbs have it."""
    table = FittingTable()
    for column in ("pass", "scheme", "layers", "weights", "MB\nbefore", "MB\nafter"):
        table.add_column(column, justify="left" if column in ("pass", "scheme") else "right")
    for step in plan.steps:
        table.add_row(
            step.step,
            step.scheme,
            str(step.layers or "–"),
            f"{step.weights / 1e6:.1f} M",
            f"{step.bytes_before / 1e6:.1f}",
            f"{step.bytes_after / 1e6:.1f}",
        )
    needs = Table.grid(padding=(0, 2))
    for name, said in [*_needed(plan), *(("note", note) for note in plan.notes), ("speed", predicted)]:
        if said:
            needs.add_row(f"  {name}", said)
    title = f"Plan for {plan.model} ({plan.model_type}, {plan.blocks} blocks, stored as {plan.stored})"
    return Group(title, table, needs)


def _needed(plan: Plan) -> list[tuple[str, str]]:
    return [
        ("checkpoint", f"{_megabytes(plan.checkpoint_bytes)} → {_megabytes(plan.result_bytes)}"),
        ("bundle", f"about {_megabytes(plan.bundle_bytes)}, all that a device keeps"),
        ("text", f"{plan.calibration_tokens:,} tokens to calibrate" if plan.calibration_tokens else ""),
        ("memory", f"{gigabytes(plan.peak_memory)} at its peak"),
        ("disk", disk_size(plan.disk)),
        (
            "time",
            f"{time_range(plan.seconds)}, of which {time_range(plan.probe_seconds)} measure each step on "
            f"{plan.probe_tokens:,} tokens of other text",
        ),
    ]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.2g} MB"
