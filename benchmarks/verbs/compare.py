"""``edgepress compare``: measured runs side by side in the terminal."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "--sort",
    default="size",
    show_default=True,
    metavar="ORDER",
    help="size, quality, speed, memory or name; the best comes first.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No notes on stderr.")
def command(runs: tuple[Path, ...], sort: str, as_json: bool, quiet: bool) -> None:
    """Put measured runs side by side: run files (.jsonl), or directories of them.

    \b
    edgepress compare runs/
    edgepress compare runs/w4.jsonl runs/w8.jsonl --sort quality
    """
    import shutil
    import sys

    from ...terminal import Terminal
    from ..compare import as_text, compare_runs, document, render

    terminal = Terminal(as_json=as_json, quiet=quiet)
    groups = compare_runs(runs, sort=sort)
    if sys.stdout.isatty():
        text: object = render(groups, width=shutil.get_terminal_size().columns)
    else:
        text = as_text(groups)
    terminal.document(document(groups), text)
