"""``edgepress classify``: name the label of each text with a classifier bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...terminal import Terminal
from .. import bundle_options as verb_options
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.table import Table

    from ...runtime.engine.classify import Classification

# Texts beyond which there is a bar.
_MANY = 64


@click.command("classify", cls=Verb, old={"--file": "--text", "-f": "--text"})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1)
@verb_options.text_file
@verb_options.batch_size
@verb_options.session
@output
def command(
    bundle: Path,
    texts: tuple[str, ...],
    file: Path | None,
    batch_size: int,
    threads: int | None,
    provider: str,
    terminal: Terminal,
) -> None:
    """Name the label of TEXTS (or a file of them) with the classifier BUNDLE, and how probable it is."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.engine.classify import ClassifierModel

    lines = verb_options.given_texts(texts, file, "classify")
    opened = Bundle.open(bundle, weights_later=True)
    model = ClassifierModel(opened, threads=threads, provider=provider)
    if model.encoder.session.misplaced:
        terminal.say(f"WARNING: {model.encoder.session.misplaced}")
    progress = terminal.progress if len(lines) > _MANY else None
    found = model.classify(lines, batch_size=batch_size, progress=progress)
    rows = [
        {"text": line, "label": one.label, "probability": one.probability, "probabilities": one.probabilities}
        for line, one in zip(lines, found, strict=True)
    ]
    terminal.document(
        {"labels": list(model.labels), "texts": rows}, None if terminal.as_json else _table(lines, found)
    )


def _table(lines: list[str], found: Sequence[Classification]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("text", "label", "probability")
    for line, one in zip(lines, found, strict=True):
        shown = line if len(line) <= 60 else line[:59] + "…"
        table.add_row(Text(shown), Text(one.label), f"{one.probability:.3f}")
    return table
