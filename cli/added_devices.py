"""The commands of ``edgepress devices`` about other machines: add one that ssh reaches, and remove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..terminal import Terminal
from . import completion
from .verb import Verb, output

if TYPE_CHECKING:
    from ..devices.own_devices import OwnDevice


@click.command("add", cls=Verb)
@click.argument("name")
@click.option("--ssh", "address", required=True, metavar="USER@HOST", help="What ssh takes.")
@output
def add(name: str, address: str, terminal: Terminal) -> None:
    """Add a machine that ssh reaches as NAME, for --on.

    It needs Python 3.11 or newer and nothing else. Host keys are checked: connect once by hand before.
    """
    from ..devices.own_devices import OwnDevice, keep, require_free_name
    from ..devices.transports.answers import Facts
    from ..devices.transports.fitness import require_fit
    from ..devices.transports.ssh import Link

    require_free_name(name)
    with terminal.progress.task(f"asking {name}", 1) as task, Link(name, address) as link:
        facts = link.ask({"do": "probe"}, Facts)
        task.advance()
    require_fit(facts, name)
    device = OwnDevice(name=name, ssh=address, facts=facts)
    keep(device)
    terminal.document(device.model_dump(mode="json"), _described(device))


def _described(device: OwnDevice) -> str:
    facts = device.facts
    return (
        f"{device.name}: {facts.processor}, {facts.cpus} CPUs, {facts.memory_total / 1e9:.1f} GB, {facts.os} "
        f"{facts.machine}, Python {facts.python}\nmeasure there: edgepress profile BUNDLE --on {device.name}"
    )


@click.command("remove", cls=Verb)
@click.argument("name", shell_complete=completion.devices)
@output
def remove(name: str, terminal: Terminal) -> None:
    """Forget the device NAME, and delete what was sent there."""
    from ..devices.own_devices import forget, own_device
    from ..devices.transports.answers import Cleared
    from ..devices.transports.ssh import Link
    from ..errors import EdgepressError

    device, cleared = own_device(name), False
    try:
        with Link(name, device.ssh) as link:
            cleared = link.ask({"do": "clear"}, Cleared).cleared
    except EdgepressError as error:
        terminal.say(f"what was sent stays in ~/.cache/edgepress/device there: {error.what}")
    forget(name)
    terminal.document({"removed": name, "cleared": cleared}, f"{name} is forgotten")
