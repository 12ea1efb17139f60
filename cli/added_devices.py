"""The commands of ``edgepress devices`` about other machines: add one that ssh reaches, remove it, make a kit
that is carried to one, and import what it wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..terminal.progress import Terminal
from . import completion
from .kernel_tables import measure_kept
from .verb import Verb, output

if TYPE_CHECKING:
    from ..devices.kernel_table.table import KernelTable
    from ..devices.own_devices import OwnDevice


@click.command("add", cls=Verb)
@click.argument("name")
@click.option("--ssh", "address", required=True, metavar="USER@HOST", help="What ssh takes.")
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Make its kernel table, for predictions: a minute.",
)
@output
def add(name: str, address: str, measure: bool, terminal: Terminal) -> None:
    """Add a machine that ssh reaches as NAME, for --on, and measure its kernels there for a minute.

    It needs Python 3.11 or newer; the packages that measure are sent at once. Host keys are checked: connect
    once by hand before.
    """
    from ..devices.own_devices import OwnDevice, keep, require_free_name
    from ..devices.transports.sending import prepare
    from ..devices.transports.ssh import Link

    require_free_name(name)
    with Link(name, address) as link:
        facts = prepare(link, [], terminal.progress).facts
    device = OwnDevice(name=name, ssh=address, facts=facts)
    keep(device)
    table, path = measure_kept(device, terminal) if measure else (None, None)
    document = {**device.model_dump(mode="json"), "table": None if path is None else str(path)}
    terminal.document(document, _described(device, table))


def _described(device: OwnDevice, table: KernelTable | None) -> str:
    facts, name = device.facts, device.name
    next_step = f"predict: edgepress predict BUNDLE --on {name}"
    if table is None:
        next_step = f"measure its kernels, for predictions: edgepress devices measure {name}"
    elif not table.complete:
        next_step = (
            f"a minute was too short for its kernel table; go on with it: edgepress devices measure {name}"
        )
    return (
        f"{name}: {facts.processor}, {facts.cpus} CPUs, {facts.memory_total / 1e9:.1f} GB, {facts.os} "
        f"{facts.machine}, Python {facts.python}\n{next_step}\n"
        f"measure a bundle there: edgepress profile BUNDLE --on {name}"
    )


@click.command("remove", cls=Verb)
@click.argument("name", shell_complete=completion.devices)
@output
def remove(name: str, terminal: Terminal) -> None:
    """Forget the device NAME and its kernel tables, and delete what was sent there."""
    from ..devices.kernel_table.table import forget_tables
    from ..devices.own_devices import forget, own_device, own_devices
    from ..devices.transports.answers import Cleared
    from ..devices.transports.ssh import Link
    from ..errors import EdgepressError

    if forget_tables(name) and name not in own_devices():
        terminal.document({"removed": name, "cleared": False}, f"{name} is forgotten")
        return
    device, cleared = own_device(name), False
    try:
        with Link(name, device.ssh) as link:
            cleared = link.ask({"do": "clear"}, Cleared).cleared
    except EdgepressError as error:
        terminal.say(f"what was sent stays in ~/.cache/edgepress/device there: {error.what}")
    forget(name)
    terminal.document({"removed": name, "cleared": cleared}, f"{name} is forgotten")


@click.command("kit", cls=Verb)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option("--platform", required=True, metavar="NAME", help="linux-aarch64, linux-x86_64, macos-arm64, …")
@click.option("--quick", is_flag=True, help="A look: fewer blocks, a shorter warm-up.")
@output
def kit(bundle: Path, output: Path, platform: str, quick: bool, terminal: Terminal) -> None:
    """Make a folder that measures BUNDLE on a machine without network or ssh.

    Carry it there and run its start file: it writes record.jsonl and a kernel table, kernels.json, for
    `devices import` here. The machine needs Python 3.11 or newer and nothing else.
    """
    from dataclasses import asdict

    from ..benchmarks.speed.protocol import Protocol
    from ..benchmarks.speed.sitting import SETTLE_S
    from ..devices.kernel_table.plan import LIMIT_S
    from ..devices.transports.fitness import NAMED
    from ..devices.transports.sending import START, make_kit

    plan = {
        "protocol": asdict(Protocol.quick() if quick else Protocol()),
        "options": {},
        "settle_s": 0.0 if quick else SETTLE_S,
        "kernels_s": 0.0 if quick else LIMIT_S,
        "command": f"edgepress devices kit {bundle.name} --platform {platform}",
    }
    pythons = make_kit(bundle, output, platform, plan, terminal.progress)
    start = START.get(NAMED[platform][0], "start.sh")
    shown = f"{output}: for {platform} with Python {', '.join(pythons)}; run {start} there, then here:"
    document = {"output": str(output), "platform": platform, "pythons": pythons, "start": start}
    terminal.document(document, f"{shown}\nedgepress devices import {output.name}/record.jsonl")


def _import_table(file: Path, name: str | None, terminal: Terminal) -> None:
    from ..devices.kernel_table.table import keep_table, read_table
    from ..devices.own_devices import own_devices, require_free_name

    table = read_table(file)
    if name is None:
        raise click.UsageError("a kernel table needs --name: what is its machine called?")
    if name not in own_devices():
        require_free_name(name)
    path = keep_table(name, table)
    shown = f"{name}: {table.key.processor}; predict with: edgepress predict BUNDLE --on {name}"
    terminal.document({"table": str(path), "name": name}, shown)


def _import_meter(log: Path, record: Path | None, terminal: Terminal) -> None:
    from ..benchmarks.records.energy_metrics import import_meter

    if record is None:
        raise click.UsageError("a meter's log needs --record: which run file waits for it?")
    found = import_meter(log, record)
    shown = "\n".join(f"{line.subject.name}: {len(line.metrics)} metrics, with energy" for line in found)
    terminal.document({"record": str(record), "added": [line.id for line in found]}, shown)
    terminal.say(f"recorded in {record}")


@click.command("import", cls=Verb)
@click.argument("record", type=click.Path(path_type=Path))
@click.option(
    "--record", "into", type=click.Path(path_type=Path), help="Run file. [default: runs/NAME.jsonl]"
)
@click.option("--name", help="What the machine is called: on pages, and for `predict --on` its kernel table.")
@output
def import_record(record: Path, into: Path | None, name: str | None, terminal: Terminal) -> None:
    """Take what a kit or a meter wrote elsewhere.

    The lines of a kit's record go into the run file, those that are in it already left out, as of the machine
    NAME; its kernel table (kernels.json) is kept as that of NAME; the joules of a meter's log (.csv) go to
    the lines of --record that wait for them.
    """
    if record.suffix == ".json":
        _import_table(record, name, terminal)
        return
    if record.suffix == ".csv":
        _import_meter(record, into, terminal)
        return
    from ..benchmarks.speed.elsewhere import import_lines
    from ..devices.own_devices import require_free_name

    if name is not None:
        require_free_name(name)
    added, file = import_lines(record, into, name)
    shown = "\n".join(f"{line.subject.name}: {line.validity.status}" for line in added)
    document = {"record": str(file), "added": [line.id for line in added]}
    terminal.document(document, shown or "nothing that is not there already")
    terminal.say(f"recorded in {file}")
