"""``edgepress profile CHECKPOINT --engine NAME``: what is measured through another engine's server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadUsage
from ..terminal.progress import Terminal
from .bundle_options import print_plan
from .measurement_table import digits

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..benchmarks.records.record import Measurement
    from ..benchmarks.speed.protocol import Protocol

# Options of `profile` that mean nothing where an engine of its own build serves a checkpoint.
_FOREIGN = ("baseline", "batch_size", "provider", "per_op", "on")
_COLUMNS = (
    ("output_tps", "all tok/s", 1.0),
    ("decode_tps", "one stream tok/s", 1.0),
    ("ttft_ms", "first token ms", 1.0),
    ("tpot_ms", "per token ms", 1.0),
    ("rss_peak_bytes", "resident MB", 1e-6),
)


def numbers(text: str) -> tuple[int, ...]:
    """``1,8,32`` as numbers; raises BadUsage."""
    try:
        return tuple(dict.fromkeys(int(one) for one in text.split(",")))
    except ValueError:
        raise BadUsage(f"--concurrency is {text}, not numbers by comma, such as 1,8,32") from None


def measure_served(
    checkpoint: Path,
    engine: str,
    concurrency: str,
    *,
    protocol: Protocol,
    dry_run: bool,
    terminal: Terminal,
    record: Path,
    max_memory: float | None,
    command: str,
    **lengths: Any,
) -> None:
    """Plan it or do it; a row for each number of requests at once."""
    levels, context = numbers(concurrency), click.get_current_context()
    for name in _FOREIGN:
        source = context.get_parameter_source(name)
        if source not in (None, click.core.ParameterSource.DEFAULT):
            option = f"--{name.replace('_', '-')}"
            raise BadUsage(f"{option} does not go with --engine: the engine's own build decides that")
    from ..benchmarks.serving.load import LoadAsked
    from ..benchmarks.serving.profile import plan_served, profile_served

    asked = LoadAsked(levels, protocol=protocol, **lengths)
    if dry_run:
        needs, server = plan_served(checkpoint, engine, asked)
        print_plan(terminal, needs, record, max_memory)
        terminal.say(f"  {'server':8} {shlex.join(server)}")
        return
    how: dict[str, Any] = {"record": record, "command": command, "max_memory": max_memory}
    lines = profile_served(checkpoint, engine, asked, progress=terminal.progress, **how)
    document = {"lines": [line.model_dump(mode="json", by_alias=True) for line in lines]}
    terminal.document(document, None if terminal.as_json else _table(lines))
    terminal.say(f"recorded in {record}")


def _table(lines: list[Measurement]) -> RenderableType:
    """Medians, and after a stroke the ninetieth percentiles that rest on enough; what speaks against them."""
    from rich.console import Group

    from ..terminal.tables import FittingTable

    first = lines[0]
    work, runtime = first.workload, first.runtime
    title = f"{first.subject.name} · {first.subject.scheme} · {runtime['name']} {runtime['version']}"
    lengths = f"{work['prompt_tokens']} + {work['new_tokens']} tokens"
    table = FittingTable(title=f"{title} · {lengths}", title_justify="left")
    for name in ("at once", *(name for _, name, _ in _COLUMNS), "requests"):
        table.add_column(name, justify="right")
    remarks = ["median / p90, where it rests on ten or more"]
    for line in lines:
        cells = [_cell(line, name, scale) for name, _, scale in _COLUMNS]
        count, validity = str(line.workload["concurrency"]), line.validity
        table.add_row(count, *cells, str(line.metrics["ttft_ms"].n))
        remarks.append(f"{count} at once: {validity.status}: {'; '.join(validity.reasons)}".rstrip(": "))
    return Group(table, *remarks)


def _cell(line: Measurement, name: str, scale: float) -> str:
    metric = line.metrics[name]
    values = [metric.value] if metric.p90 is None else [metric.value, metric.p90]
    return " / ".join(digits(None if value is None else value * scale) for value in values)
