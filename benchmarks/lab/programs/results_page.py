"""A results file: one Markdown table with the command, machine, versions and date that made it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ....devices.probe import probe
from ....storage import write_atomic

PACKAGES = ("edgepress", "torch", "transformers", "compressed-tensors", "onnxruntime", "numpy")


def versions() -> str:
    """``name version`` of the packages that decide a result."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """This machine in a line."""
    here = probe()
    cpu = here.cpu
    return f"{cpu.model}, {cpu.logical} logical CPUs, {here.memory.total / 2**30:.0f} GiB, {here.os}"


def write_table(
    path: Path,
    title: str,
    command: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> None:
    """Write the table, whole or not at all; ``notes`` follow it, one a line."""
    lines = [
        f"# {title}",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
        f"- Command: `{command}`",
        f"- Machine: {machine()}",
        f"- Versions: {versions()}",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}",
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines).encode())
