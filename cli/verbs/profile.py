"""``edgepress profile``: latency, throughput, memory and energy of a bundle on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import BadUsage, InputError, UnknownName, nearest
from ...terminal.progress import Terminal
from .. import completion
from ..bundle_options import COUNT, SEED, max_memory, print_plan, provider, threads
from ..bundle_options import dry_run as dry_run_option
from ..measurement_table import measurement_table, measurement_tables
from ..served import measure_served
from ..verb import Verb, given_command, output

if TYPE_CHECKING:
    from ...benchmarks.speed.elsewhere import Request
    from ...benchmarks.speed.protocol import Protocol
    from ...devices.own_devices import OwnDevice

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
    protocol, words = _protocol(quick, blocks, seed), given_command()
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
    options |= {"threads": threads, "provider": provider}
    if dry_run:
        needs = plan_profile(bundle, baseline=baseline, protocol=protocol, **options)
        print_plan(terminal, needs, record, max_memory)
        return
    options["per_op"] = per_op
    if places:
        from ...benchmarks.speed.elsewhere import Request
        from ...benchmarks.speed.sitting import SETTLE_S

        bundles = (bundle, *(() if baseline is None else (baseline,)))
        request = Request(bundles, protocol, options, words, 0.0 if quick else SETTLE_S)
        _in_places(places, request, record, terminal)
        return
    line = profile_bundle(bundle, baseline=baseline, progress=progress, **options, **how)
    shown = None if terminal.as_json else measurement_table(line)
    terminal.document(line.model_dump(mode="json", by_alias=True), shown)
    terminal.say(f"recorded in {record}")


def _in_places(places: list[OwnDevice | None], request: Request, record: Path, terminal: Terminal) -> None:
    """Measure in each place; a table each, and the error of those that failed last."""
    from ...benchmarks.speed.side_by_side import SideBySide

    found = SideBySide(request, record, terminal.progress)
    found.run(places)
    failure = found.failure()
    if failure is not None and (not found.lines or not terminal.as_json):
        if found.lines:
            terminal.document(None, measurement_tables(found.lines))
        raise failure
    document = {
        "lines": {name: line.model_dump(mode="json", by_alias=True) for name, line in found.lines.items()},
        "errors": {name: error.as_dict() for name, error in found.errors.items()},
    }
    terminal.document(document, None if terminal.as_json else measurement_tables(found.lines))
    terminal.say(f"recorded in {record}")
    if failure is not None:
        raise click.exceptions.Exit(failure.exit_code)


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
