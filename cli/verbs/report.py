"""``edgepress report``: one self-contained HTML page from measured runs."""

from pathlib import Path

import click

from ...terminal.progress import Terminal
from ..verb import Verb
from ..verb import output as verb_output


@click.command("report", cls=Verb)
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The page to write.",
)
@click.option(
    "--predicted",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What `edgepress predict --json` printed, to stand beside the measurements.",
)
@click.option(
    "--grid",
    metavar="FACTOR",
    help="Grams of CO₂ beside joules: '380 g/kWh, the agency that says so, 2023'.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is no page of edgepress's.")
@verb_output
def command(
    runs: tuple[Path, ...],
    output: Path,
    predicted: tuple[Path, ...],
    grid: str | None,
    overwrite: bool,
    terminal: Terminal,
) -> None:
    """Write one HTML page from measured runs: run files (.jsonl), or directories of them.

    The page needs no network and no script. Open it in a browser, print it, send it.
    """
    from ...benchmarks.page.report import write_report
    from ...files.storage import sha256_file

    path = write_report(runs, output, predicted=predicted, grid=grid, overwrite=overwrite)
    result = {"report": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    terminal.document(result, str(path))
