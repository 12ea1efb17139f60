"""``edgepress devices measure``: makes the kernel table of this machine, or of one that ssh reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..terminal.progress import Terminal
from . import completion
from .bundle_options import dry_run as dry_run_option
from .verb import Verb, output

if TYPE_CHECKING:
    from pathlib import Path

    from ..devices.kernel_table.plan import MeasurePlan
    from ..devices.kernel_table.table import KernelTable
    from ..devices.own_devices import OwnDevice

# Others that use more of the processors than this make a table that says less.
_BUSY_PERCENT = 10.0


@click.command("measure", cls=Verb)
@click.argument("name", default="here", shell_complete=completion.devices)
@click.option("--provider", default="cpu", show_default=True, help="cuda: of its GPU; not run on one yet.")
@dry_run_option
@output
def measure(name: str, provider: str, dry_run: bool, terminal: Terminal) -> None:
    """Measure the kernels, memory and disk of this machine, or of the device NAME, for `edgepress predict`.

    It takes a minute at the most. The table is kept in the user's configuration; a measurement that was
    stopped goes on with the same command.
    """
    progress = terminal.progress  # a clock that ticks while the rest is imported
    from ..devices.kernel_table.gpu import require_timed
    from ..devices.kernel_table.measure import measure_kernels
    from ..devices.kernel_table.plan import plan
    from ..devices.kernel_table.table import HERE
    from ..devices.own_devices import HERE as WORDS
    from ..devices.own_devices import own_device

    if provider != "cpu":
        require_timed(provider)
        if name in WORDS:
            _measure_gpu(provider, dry_run, terminal)
            return
    if name in WORDS:
        if dry_run:
            planned = plan()
            terminal.document(planned.as_dict(), _planned(planned))
            return
        table, path = measure_kernels(progress)
    else:
        device = own_device(name)
        if dry_run:
            document = {"device": name, "ssh": device.ssh}
            terminal.document(document, f"would measure kernels on {name} ({device.ssh}) for a minute")
            return
        table, path = measure_kept(device, terminal, provider)
    document = {"table": str(path), **table.model_dump(mode="json", by_alias=True)}
    terminal.document(document, None if terminal.as_json else summary(HERE if name in WORDS else name, table))
    terminal.say(f"kept in {path}")


def measure_kept(device: OwnDevice, terminal: Terminal, provider: str = "cpu") -> tuple[KernelTable, Path]:
    """Have ``device`` make its kernel table; the table, and where it is kept."""
    from ..benchmarks.speed.elsewhere import measure_kernels_on
    from ..devices.kernel_table.table import keep_table

    table = measure_kernels_on(device, terminal.progress, provider)
    return table, keep_table(device.name, table)


def _measure_gpu(provider: str, dry_run: bool, terminal: Terminal) -> None:
    """A table of this machine's GPU, or what it would hold."""
    from ..devices.kernel_table.gpu import LIMIT_S, gpu_cases, gpu_key, gpu_table_path, measure_gpu

    key = gpu_key(provider)
    path, count = gpu_table_path(key), len(gpu_cases())
    if dry_run:
        document = {"key": key.model_dump(), "table": str(path), "cases": count, "seconds": LIMIT_S}
        where = f"{key.processor}, {', '.join(key.flags)}, ONNX Runtime {key.runtime}"
        terminal.document(
            document, f"would time {count} cases in at most {LIMIT_S:.0f} s\nfor {where}\ninto {path}"
        )
        return
    table = measure_gpu(key, path, terminal.progress)
    document = {"table": str(path), **table.model_dump(mode="json", by_alias=True)}
    timed = sum(len(one.sizes) for one in table.families)
    terminal.document(document, f"{key.processor}: {timed} of {count} cases in {table.took:.0f} s")
    terminal.say(f"kept in {path}")


def _planned(planned: MeasurePlan) -> str:
    counts = ", ".join(map(str, planned.threads))
    return (
        f"would time {planned.cases - planned.done:,} of {planned.cases:,} cases with {counts} threads, "
        f"in about {planned.seconds:.0f} s and {2 * planned.stock / 1e9:.2f} GB of memory\n"
        f"for {planned.key.processor}, ONNX Runtime {planned.key.runtime}, kernels {planned.key.kernels}\n"
        f"into {planned.path}"
    )


def summary(name: str, table: KernelTable) -> str:
    """A screen: bandwidths, the fixed costs, and how whole the table is."""
    key = table.key
    lines = [f"{name}: {key.processor}, ONNX Runtime {key.runtime}, kernels {key.kernels}"]
    for threads in table.threads:
        rates = [
            f"{one.bytes_per_second / 1e9:.1f} at {max(one.working_set >> 20, 1)} MiB"
            for one in table.bandwidth
            if one.threads == threads
        ]
        fixed = next(one for one in table.fixed if one.threads == threads)
        lines.append(f"  {threads} threads: reads GB/s: {', '.join(rates)}; a node {1e6 * fixed.node:.2f} µs")
    if table.start is not None:
        disk = table.disk_bytes_per_second
        read = f", {disk / 1e9:.2f} GB/s from disk" if disk else ""
        lines.append(
            f"  a process starts in {1e3 * table.start:.0f} ms and {table.resident / 1e6:.0f} MB{read}"
        )
    timed = sum(len(one.sizes) for one in table.families)
    lines.append(
        f"  {timed:,} times of {len({one.op for one in table.families})} operators in {table.took:.0f} s"
    )
    if not timed:
        lines.append("  the time was over before an operator was timed: its disk is slow, or others use it")
    elif not table.complete:
        lines.append("  not complete: the same command goes on")
    if table.busy_percent is not None and table.busy_percent > _BUSY_PERCENT:
        lines.append(
            f"  others used {table.busy_percent:.0f} % of the processors: measure again when it is idle"
        )
    return "\n".join(lines)
