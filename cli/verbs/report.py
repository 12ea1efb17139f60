"""``edgepress report``: one self-contained HTML page from measured runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The page to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing page.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No notes on stderr.")
def command(runs: tuple[Path, ...], output: Path, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write one HTML page from measured runs: run files (.jsonl), or directories of them.

    The page needs no network and no script. Open it in a browser, print it, send it.
    """
    from ...benchmarks.page.report import write_report
    from ...storage import sha256_file
    from ...terminal import Terminal

    terminal = Terminal(as_json=as_json, quiet=quiet)
    path = write_report(runs, output, overwrite=overwrite)
    result = {"report": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    terminal.document(result, str(path))
