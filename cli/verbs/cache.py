"""``edgepress cache list | make BUNDLE | clear``: the prepacked weights that are kept on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import GateFailed, InputError
from ...terminal import Terminal
from ..verb import VerbGroup, output

if TYPE_CHECKING:
    from rich.table import Table

    from ...runtime.prepack.prepacked import PrepackedEntry


@click.group("cache", cls=VerbGroup, short_help="List, make and clear the prepacked weights of this machine.")
def command() -> None:
    """Prepacked weights: copies of bundles as this machine's CPU wants them, made after a first run."""


@command.command("list")
@click.option("--check", is_flag=True, help="Read every byte; exits with 1 when an entry is damaged.")
@output
def list_entries(check: bool, terminal: Terminal) -> None:
    """List the entries, the least recently used first: what goes when there is no room."""
    from ...runtime.prepack import prepacked
    from ...runtime.prepack.prepack import limit_bytes

    found = prepacked.entries()
    problems = [problem for entry in found for problem in _problems(entry)] if check else []
    if problems:
        raise GateFailed(
            "an entry of the cache is damaged",
            why="\n".join(problems),
            fix="drop it with: edgepress cache clear",
        )
    total = sum(entry.bytes for entry in found)
    document = {
        "folder": str(prepacked.folder()),
        "bytes": total,
        "limit_bytes": limit_bytes(),
        "entries": [entry.as_dict() for entry in found],
    }
    terminal.document(document, None if terminal.as_json else _table(found))
    terminal.say(f"{total / 1e9:.2f} of at most {limit_bytes() / 1e9:.0f} GB in {prepacked.folder()}")


def _problems(entry: PrepackedEntry) -> list[str]:
    if not entry.whole:
        return [f"{entry.path}: not as it was written"]
    return [f"{entry.path}: {problem}" for problem in map(entry.damage, entry.files) if problem]


def _table(found: list[PrepackedEntry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "scheme", "MB", "last used")
    for entry in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
        name = Text(entry.name if entry.whole else f"{entry.name} (damaged)")
        table.add_row(name, Text(entry.scheme), f"{entry.bytes / 1e6:.0f}", used)
    return table


@command.command("make")
@click.argument("bundle", type=click.Path(path_type=Path))
@output
def make(bundle: Path, terminal: Terminal) -> None:
    """Prepack the weights of BUNDLE now, not after its first run."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.prepack.prepack import prepack

    entry = prepack(Bundle.open(bundle))
    if entry is None:
        raise InputError(f"another process is prepacking {bundle}", fix="wait for it to end")
    terminal.document(entry.as_dict(), f"{entry.path}: {entry.bytes / 1e6:.0f} MB")


@command.command("clear")
@output
def clear_entries(terminal: Terminal) -> None:
    """Remove every entry. What runs now goes on."""
    from ...runtime.prepack.prepack import clear

    dropped = clear()
    freed = sum(entry.bytes for entry in dropped)
    document = {"entries": len(dropped), "bytes": freed}
    terminal.document(document, f"{len(dropped)} entries, {freed / 1e6:.0f} MB")
