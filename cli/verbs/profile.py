"""``edgepress profile``: latency, throughput, memory and energy of a bundle on this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import BadUsage, InputError, UnknownName, nearest
from ...terminal import Terminal
from .. import completion
from ..bundle_options import COUNT, SEED, max_memory, print_plan, provider, threads
from ..bundle_options import dry_run as dry_run_option
from ..served import measure_served
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ...benchmarks.page.account_table import AccountTable
    from ...benchmarks.records.record import Measurement
    from ...benchmarks.speed.elsewhere import Request
    from ...benchmarks.speed.protocol import Protocol
    from ...devices.own_devices import OwnDevice

_OPERATORS_SHOWN = 6
_LEVELS = "1,8,32"
MOST_SECONDS = 120.0


@click.command(
    "profile",
    cls=Verb,
    old={"--batch": "--batch-size", "--new-tokens": "--max-new-tokens", "--device": "--on"},
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--baseline", type=click.Path(path_type=Path), help="Another bundle, measured interleaved (ABBA)."
)
@click.option(
    "--prompt-tokens",
    type=COUNT,
    default=128,
    show_default=True,
    help="Prompt length; an encoder's sentence length.",
)
@click.option(
    "--max-new-tokens",
    type=COUNT,
    default=128,
    show_default=True,
    help="Tokens to generate, exactly so many.",
)
@click.option(
    "--batch-size", type=COUNT, default=32, show_default=True, help="Sentences per batch of an encoder."
)
@threads
@provider
@click.option(
    "--blocks",
    type=click.IntRange(1, 10_000),
    help="Timed blocks per arm, each in a fresh process. [default: 10, and more until the speeds are within "
    "5 %, for two minutes at the most; with --quick 6]",
)
@click.option("--quick", is_flag=True, help="A look: fewer blocks, a shorter warm-up.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the prompt and the bootstrap.")
@click.option(
    "--record", type=click.Path(path_type=Path), help="Run file to append to. [default: runs/NAME.jsonl]"
)
@click.option(
    "--per-op", is_flag=True, help="Account for the time and the bytes of every operator and layer."
)
@click.option("--no-energy", is_flag=True, help="Do not count joules: saves a minute where they can be.")
@click.option(
    "--on",
    metavar="NAMES",
    shell_complete=completion.places,
    help="Where, by comma: here, and names of `edgepress devices add`.",
)
@click.option(
    "--engine",
    shell_complete=completion.engines,
    help="Another engine that serves the checkpoint BUNDLE, measured under load through its API: vllm.",
)
@click.option(
    "--concurrency",
    metavar="NUMBERS",
    help="Requests at once, by comma, one number after the other. [default with --engine: 1,8,32]",
)
@max_memory
@dry_run_option
@output
def command(
    bundle: Path,
    baseline: Path | None,
    prompt_tokens: int,
    max_new_tokens: int,
    batch_size: int,
    threads: int | None,
    provider: str,
    blocks: int | None,
    quick: bool,
    seed: int,
    record: Path | None,
    per_op: bool,
    no_energy: bool,
    on: str | None,
    engine: str | None,
    concurrency: str | None,
    max_memory: float | None,
    dry_run: bool,
    terminal: Terminal,
) -> None:
    """Measure latency, memory and energy of BUNDLE, on this machine or --on others.

    The bundle runs in fresh worker processes, alone or interleaved with --baseline; with --engine another
    engine serves a checkpoint. One JSON line is appended to the run file for each machine, or number of
    requests at once; `edgepress compare` and `edgepress report` read it.
    """
    places = _places(on)
    progress = terminal.progress  # a clock that ticks while the rest is imported
    record = record or Path("runs") / f"{bundle.resolve().name}.jsonl"
    protocol, words = _protocol(quick, blocks, seed), shlex.join(["edgepress", *sys.argv[1:]])
    lengths: dict[str, Any] = {"prompt_tokens": prompt_tokens, "new_tokens": max_new_tokens}
    how: dict[str, Any] = {"protocol": protocol, "record": record, "command": words, "max_memory": max_memory}
    if engine is not None:
        levels, how = concurrency or _LEVELS, {**how, **lengths, "threads": threads}
        measure_served(bundle, engine, levels, dry_run=dry_run, terminal=terminal, **how)
        return
    if concurrency is not None:
        raise BadUsage("--concurrency goes with --engine: a bundle answers one request at a time")
    from ...benchmarks.speed.profile import plan_profile, profile_bundle

    options = {**lengths, "batch": batch_size, "energy": not no_energy}
    if dry_run:
        needs = plan_profile(bundle, baseline=baseline, protocol=protocol, **options)
        print_plan(terminal, needs, record, max_memory)
        return
    options |= {"threads": threads, "provider": provider, "per_op": per_op}
    if places:
        from ...benchmarks.speed.elsewhere import Request
        from ...benchmarks.speed.sitting import SETTLE_S

        bundles = (bundle, *(() if baseline is None else (baseline,)))
        request = Request(bundles, protocol, options, words, 0.0 if quick else SETTLE_S)
        _in_places(places, request, record, terminal)
        return
    line = profile_bundle(bundle, baseline=baseline, progress=progress, **options, **how)
    terminal.document(line.model_dump(mode="json", by_alias=True), None if terminal.as_json else _table(line))
    terminal.say(f"recorded in {record}")


def _in_places(places: list[OwnDevice | None], request: Request, record: Path, terminal: Terminal) -> None:
    """Measure in each place; a table each, and the error of those that failed last."""
    from rich.console import Group

    from ...benchmarks.speed.side_by_side import SideBySide

    found = SideBySide(request, record, terminal.progress)
    found.run(places)
    failure = found.failure()
    if failure is not None and (not found.lines or not terminal.as_json):
        if found.lines:
            terminal.document(None, Group(*_titled(found.lines)))
        raise failure
    document = {
        "lines": {name: line.model_dump(mode="json", by_alias=True) for name, line in found.lines.items()},
        "errors": {name: error.as_dict() for name, error in found.errors.items()},
    }
    terminal.document(document, None if terminal.as_json else Group(*_titled(found.lines)))
    terminal.say(f"recorded in {record}")
    if failure is not None:
        raise click.exceptions.Exit(failure.exit_code)


def _titled(lines: dict[str, Measurement]) -> list[RenderableType]:
    return [part for name, line in lines.items() for part in (f"on {name}", _table(line), "")]


def _places(on: str | None) -> list[OwnDevice | None]:
    """The devices that are named, None for here; none at all for the plain measurement here. A target, known
    or not, is refused in words that fit.
    """
    if on in (None, "this"):
        return []
    from ...devices.own_devices import HERE, own_device, own_devices
    from ...devices.target import target, target_names

    known = own_devices()
    places: dict[str, OwnDevice | None] = {}
    for name in (one.strip() for one in str(on).split(",")):
        if name in HERE or name in known:
            places[name] = None if name in HERE else own_device(name)
            continue
        if name.lower().replace("_", "-") in target_names():
            raise InputError(
                f"profile measures, and cannot say how fast {target(name).title} is",
                why="a target's figures are claims, and a prediction is never put beside measurements",
                fix=f"reach one over ssh: edgepress devices add NAME --ssh USER@HOST; its figures: "
                f"edgepress devices show {name}",
            )
        near = nearest(name, target_names())
        if near and not nearest(name, known):
            raise UnknownName("device", name, known, fix=f"did you mean {near!r}?")
        own_device(name)
    return list(places.values())


def _protocol(quick: bool, blocks: int | None, seed: int) -> Protocol:
    from dataclasses import replace

    from ...benchmarks.speed.protocol import Protocol

    plan = Protocol.quick(seed) if quick else Protocol(seed=seed, most_seconds=MOST_SECONDS)
    return plan if blocks is None else replace(plan, blocks=blocks, most_seconds=0.0)


def _table(line: Measurement) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ...benchmarks.page.account_table import account_tables

    table = Table(
        title=f"{line.subject.name} · {line.subject.scheme} · {_conditions(line)}", title_justify="left"
    )
    for title in ("", "median", "CI 95 %", "p90", "p99", "unit", "n"):
        table.add_column(title, justify="left" if title in ("", "unit") else "right")
    for name, metric in line.metrics.items():
        scale, unit = (1e6, "MB") if metric.unit == "bytes" else (1, metric.unit)
        interval = " – ".join(_digits(bound / scale) for bound in metric.ci95) if metric.ci95 else ""
        numbers = [_digits(None if value is None else value / scale) for value in (metric.p90, metric.p99)]
        median = _digits(None if metric.value is None else metric.value / scale)
        table.add_row(name, median, interval, *numbers, unit, str(metric.n))
    accounts = [_rendered(found) for found in account_tables(line.per_op)] if line.per_op else []
    return Group(table, *map(Text, _remarks(line)), *accounts)


def _rendered(account: AccountTable) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    table = Table(title=account.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(account.columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in account.rows:
        table.add_row(*row)
    return Group("", table, account.note) if account.note else table


def _digits(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _conditions(line: Measurement) -> str:
    work, threads = line.workload, line.runtime["threads"]
    if work["kind"] == "generate":
        return f"{work['prompt_tokens']} + {work['new_tokens']} tokens, {threads} threads"
    return f"{work['length']} tokens, batch {work['batch']}, {threads} threads"


def _remarks(line: Measurement) -> list[str]:
    from ...benchmarks.page.account_table import energy_remark

    remarks: list[str] = []
    if line.compare:
        remarks.append(_comparison(line.compare, line.baseline.name if line.baseline else "the baseline"))
    if line.roofline:
        remarks.append(
            f"roofline: {100 * (line.roofline['fraction'] or 0):.0f} % of "
            f"{line.roofline['ceiling_tps']:,.0f} tok/s "
            f"({line.roofline['bandwidth_at_weights']['gb_per_second']:.1f} GB/s measured here)"
        )
    remarks += energy_remark(line)
    shares = [f"{row['op']} {100 * row['share']:.0f} %" for row in line.time_by_op[:_OPERATORS_SHOWN]]
    remarks.append("time: " + ", ".join(shares))
    remarks.append(": ".join([line.validity.status, "; ".join(line.validity.reasons)]).rstrip(": "))
    return remarks


def _comparison(compare: dict[str, Any], baseline: str) -> str:
    if compare["ratio_median"] is None:
        return f"against {baseline}: {compare['verdict']} ({compare['reason']})"
    low, high = compare["ci95"]
    text = (
        f"against {baseline}: {compare['verdict']}, {compare['ratio_median']:.2f} × ({low:.2f} – {high:.2f})"
    )
    return f"{text}; {compare['reason']}" if compare["reason"] else text
