"""``edgepress devices``: the targets that are known, one of them in full, this machine, and those that a user
has added.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ...files.limits import threads_in_words
from ...terminal.progress import Terminal
from .. import completion
from ..added_devices import add, import_record, kit, remove
from ..kernel_tables import measure
from ..verb import VerbGroup, output

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ...devices.bandwidth import Bandwidth
    from ...devices.energy import Meter, NoMeter
    from ...devices.own_devices import OwnDevice
    from ...devices.probe import Machine
    from ...devices.target import Fact, Figure, Target

# Weights of one billion parameters at 4, 8 and 16 bits with their scales.
_CEILINGS = {"1 B at 4 bit": 0.5e9, "1 B at 8 bit": 1.1e9, "1 B at 16 bit": 2.2e9}


@click.group("devices", cls=VerbGroup)
def command() -> None:
    """List known targets, probe and measure this machine, and add those that ssh reaches."""


for one in (measure, add, remove, kit, import_record):
    command.add_command(one)


@command.command(name="list")
@output
def list_targets(terminal: Terminal) -> None:
    """List the devices that were added, and the targets with memory, bandwidth and power."""
    from ...devices.own_devices import own_devices
    from ...devices.target import target, target_names

    targets, added = [target(name) for name in target_names()], list(own_devices().values())
    document = {
        "devices": [device.model_dump(mode="json") for device in added],
        "targets": [known.model_dump(mode="json") for known in targets],
    }
    terminal.document(document, None if terminal.as_json else _list_table(added, targets))


@command.command(name="show")
@click.argument("name", shell_complete=completion.targets)
@output
def show_target(name: str, terminal: Terminal) -> None:
    """Show the target NAME of `edgepress devices list`: each number with its source and confidence."""
    from ...devices.kernel_table.submission import measured
    from ...devices.target import target

    known = measured(target(name))
    ceilings = {label: known.decode_ceiling(size) for label, size in _CEILINGS.items()}
    document = {**known.model_dump(mode="json"), "decode_ceiling_tps": ceilings}
    terminal.document(document, None if terminal.as_json else _target_table(known, ceilings))


@command.command(name="probe")
@click.option("--bandwidth", is_flag=True, help="Also measure the read bandwidth of memory (seconds).")
@output
def probe_machine(bandwidth: bool, terminal: Terminal) -> None:
    """Show this machine: CPU, memory, GPUs, limits, ONNX Runtime, energy counters."""
    from ...devices.bandwidth import beyond_cache, measure_bandwidth
    from ...devices.energy import find_meters
    from ...devices.probe import probe
    from ...devices.state import read_state

    machine, measured = probe(), None
    if bandwidth:
        measured = measure_bandwidth(beyond_cache(machine.cpu.last_level_cache_bytes))
    meters = find_meters(gpu=bool(machine.gpus))
    document = {
        "machine": machine.model_dump(mode="json"),
        "state": read_state().model_dump(mode="json"),
        "bandwidth": measured.as_dict() if measured else None,
        "energy": {device: meter.describe() for device, meter in meters.items()},
    }
    table = None if terminal.as_json else _machine_table(machine, measured, meters)
    terminal.document(document, table)


def _plain_table(*columns: str, whole: int = 1) -> Table:
    """A table without lines whose first ``whole`` columns never wrap."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(columns), header_style="dim")
    for index, heading in enumerate(columns):
        table.add_column(heading, no_wrap=index < whole, overflow="ellipsis" if index < whole else "fold")
    return table


def _range(figure: Figure) -> str:
    top = f" – {figure.up_to:,g}" if figure.up_to is not None else ""
    return f"{figure.value:,g}{top} {figure.unit}"


def _list_table(added: list[OwnDevice], targets: list[Target]) -> Table:
    table = _plain_table("name", "memory", "bandwidth", "power", "machine", whole=4)
    for device in added:
        facts = device.facts
        told = f"{facts.processor}, {facts.os} {facts.machine}; ssh {device.ssh}"
        table.add_row(device.name, f"{facts.memory_total / 1e9:,.1f} GB", "", "", told)
    for known in targets:
        figures = map(_range, (known.memory, known.bandwidth, known.power))
        table.add_row(known.name, *figures, known.title)
    return table


def _target_table(known: Target, ceilings: dict[str, float]) -> RenderableType:
    """The facts with numbered sources below them, as footnotes."""
    from rich.console import Group

    facts = list(_labelled_facts(known))
    sources = list(dict.fromkeys(fact.source for _, _, fact in facts))
    table = _plain_table("", "", "confidence", "source", "", whole=4)
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    for label, value, fact in facts:
        table.add_row(label, value, fact.confidence, f"[{sources.index(fact.source) + 1}]", fact.note)
    for label, rate in ceilings.items():
        table.add_row(f"decode, {label}", f"≤ {rate:,.0f} tok/s", "", "", "")
    notes = [f"[{number}] {source}" for number, source in enumerate(sources, 1)]
    roof = "decode: memory bandwidth ÷ bytes of the weights, which each token reads once"
    return Group(known.title, "", table, "", *known.notes, roof, *notes)


def _labelled_facts(known: Target) -> Iterator[tuple[str, str, Fact]]:
    """Label, value in words and the fact itself, in the order of the table."""
    from ...devices.predict.data_sheet import SHARES, share_of

    for label, figure in {"memory": known.memory, "bandwidth": known.bandwidth, "power": known.power}.items():
        yield label, _range(figure), figure
    for size in SHARES if known.share is None else ["large"]:
        if (share := share_of(known, size)) is not None:
            yield "decoding reads at", f"{100 * share.value:.0f} %", share
    for kind, figure in known.cores.items():
        yield f"{kind} cores", _range(figure).removesuffix(" cores"), figure
    if known.isa:
        yield "instructions", " ".join(known.isa.flags), known.isa
    for peak in known.peaks:
        yield f"{peak.dtype} on the {peak.on.upper()}", f"{peak.value:,g} {peak.unit}", peak
    providers = [name.removesuffix("ExecutionProvider") for name in known.providers.names]
    yield "providers", ", ".join(providers), known.providers


def _machine_table(
    machine: Machine, bandwidth: Bandwidth | None, meters: dict[str, Meter | NoMeter]
) -> Table:
    cpu, memory, limits = machine.cpu, machine.memory, machine.limits
    quota = f", quota {limits.cpu_quota:g} CPUs" if limits.cpu_quota else ""
    rows = [
        ("system", f"{machine.os}, kernel {machine.kernel}, Python {machine.python}"),
        ("CPU", f"{cpu.model}, {cpu.physical or '?'} cores, {threads_in_words(cpu.logical)}"),
        ("instructions", " ".join(cpu.isa) or "unknown"),
        ("memory", f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB available"),
        ("thread budget", f"{limits.threads}{quota}{', in a container' if limits.container else ''}"),
    ]
    if memory.limit is not None:
        rows.append(("memory limit", f"{memory.limit / 1e9:.1f} GB by the control group"))
    if cpu.last_level_cache_bytes:
        rows.append(("last-level cache", f"{cpu.last_level_cache_bytes / 2**20:g} MiB"))
    for gpu in machine.gpus:
        rows.append(("GPU", f"{gpu.name}, {gpu.memory_mib or 0:,.0f} MiB, driver {gpu.driver}"))
    runtime = machine.onnxruntime
    rows.append(("ONNX Runtime", f"{runtime.version}: {', '.join(runtime.providers)}" if runtime else "none"))
    if bandwidth is not None:
        size = f"{bandwidth.working_set / 2**20:.0f} MiB with {threads_in_words(bandwidth.threads)}"
        rows.append(("read bandwidth", f"{bandwidth.bytes_per_second / 1e9:.1f} GB/s over {size}"))
    rows += [(f"energy of {device}", str(meter)) for device, meter in meters.items()]
    rows.append(("fingerprint", machine.fingerprint[:16]))
    table = _plain_table("", "")
    for row in rows:
        table.add_row(*row)
    return table
