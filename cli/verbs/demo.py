"""``edgepress demo``: the whole chain on two small real models."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...terminal.progress import Terminal
from ..verb import Verb
from ..verb import output as verb_output

if TYPE_CHECKING:
    from ...benchmarks.demo.run_demo import DemoResult

NEW_TOKENS = 80


@click.command("demo", cls=Verb)
@click.option(
    "-o",
    "--output",
    default="runs/demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where everything goes; the same directory again skips what is done.",
)
@click.option(
    "--all", "whole", is_flag=True, help="MiniLM in 8 and 4 bits, SmolLM2 in 8, 4 and 3: ten minutes."
)
@verb_output
def command(output: Path, whole: bool, terminal: Terminal) -> None:
    """Compress SmolLM2 to 4 bits, export it with its proof, compare, time and report it, then generate.

    About two minutes on two cores; with --all two models in five versions. Interrupted, the same command
    continues where it stopped.
    """
    from ...benchmarks.demo.demo_plan import FIRST, FIRST_MODELS, FULL, MODELS, PROMPT
    from ...benchmarks.demo.run_demo import run_demo
    from ...benchmarks.page.compare import compare_runs, document

    models, size = (MODELS, FULL) if whole else (FIRST_MODELS, FIRST)
    result = run_demo(output, models=models, size=size, notes=terminal.verbose, progress=terminal.progress)
    groups = compare_runs(result.runs)
    if not terminal.as_json:
        from .compare import table_text

        terminal.document(None, table_text(groups))
    text = _generate(result, PROMPT, show=not terminal.as_json)
    terminal.document(
        {
            **document(groups),
            "report": str(result.report),
            "runs": [str(run) for run in result.runs],
            "bundles": {name: str(path) for name, path in result.bundles.items()},
            "skipped": list(result.skipped),
            "generated": {"prompt": PROMPT, "text": text},
        },
        f"\nreport: {result.report}",
    )


def _generate(result: DemoResult, prompt: str, *, show: bool) -> str:
    """A few lines by the compressed decoder, streamed as they come."""
    from ... import open_bundle
    from ...terminal.progress import print_pieces

    path = result.bundles["smollm2/w4a16-gptq"]
    if show:
        print(f"edgepress generate {shlex.quote(str(path))} --prompt {shlex.quote(prompt)}\n", flush=True)
    pieces = open_bundle(path).stream(prompt, max_new_tokens=NEW_TOKENS)
    if show:
        print_pieces(pieces)
    return str(pieces.result.text)
