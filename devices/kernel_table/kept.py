"""Where kernel tables are kept: in the user's configuration, a folder for each machine, a file for each
key."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..own_devices import configuration
from .table import KernelTable, read_table, write_table

HERE = "here"


def tables_of(machine: str, provider: str = "cpu") -> Path:
    """The folder of a machine's tables; those of a GPU are apart from the processor's."""
    folder = configuration().parent / "kernels" / machine
    return folder if provider == "cpu" else folder / provider


def keep_table(machine: str, table: KernelTable) -> Path:
    """Keep a table that another machine made; its file."""
    path = tables_of(machine, table.key.provider) / f"{table.key.digest}.json"
    write_table(path, table.model_copy(update={"machine": machine}))
    return path


def machines() -> list[str]:
    """Names of machines that have tables."""
    folder = tables_of(HERE).parent
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def forget_tables(machine: str) -> bool:
    """Delete what is known of ``machine``; whether there was anything."""
    known = machine in machines()  # a name, and no way to another folder
    if known:
        shutil.rmtree(tables_of(machine), ignore_errors=True)
    return known


def newest_table(machine: str, provider: str = "cpu") -> KernelTable | None:
    """The table that was made last for ``provider`` of ``machine``; None where there is none."""
    found = [read_table(path) for path in sorted(tables_of(machine, provider).glob("*.json"))]
    return max(found, key=lambda table: table.created_utc, default=None)
