"""``edgepress compare``: measured runs side by side in the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...terminal.progress import Terminal
from ..verb import Verb, output

if TYPE_CHECKING:
    from ...benchmarks.page.result_groups import ResultGroup


@click.command("compare", cls=Verb)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    default="size",
    show_default=True,
    metavar="ORDER",
    help="size, quality, speed, memory, energy or name; the best comes first.",
)
@output
def command(runs: tuple[Path, ...], sort: str, terminal: Terminal) -> None:
    """Put measured runs side by side: run files (.jsonl), or directories of them."""
    from ...benchmarks.page.compare import compare_runs, document

    groups = compare_runs(runs, sort=sort)
    terminal.document(document(groups), None if terminal.as_json else table_text(groups))


def table_text(groups: Sequence[ResultGroup]) -> object:
    """The tables as wide as the terminal; plain text of 100 columns for a pipe."""
    from ...benchmarks.page.compare import as_text, render

    if sys.stdout.isatty():
        return render(groups, width=shutil.get_terminal_size().columns)
    return as_text(groups)
