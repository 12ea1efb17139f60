"""``edgepress tag``: name the spans of each text with the bundle of a classifier of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...terminal import Terminal
from .. import bundle_options as verb_options
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.table import Table

    from ...runtime.engine.tag import Span

# Texts beyond which there is a bar.
_MANY = 64


@click.command("tag", cls=Verb)
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
    """Name the spans of TEXTS (or of a file of them), such as persons and places, with the tagger BUNDLE."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.engine.tag import TaggerModel

    lines = verb_options.given_texts(texts, file, "tag")
    opened = Bundle.open(bundle, weights_later=True)
    model = TaggerModel(opened, threads=threads, provider=provider)
    if model.encoder.session.misplaced:
        terminal.say(f"WARNING: {model.encoder.session.misplaced}")
    progress = terminal.progress if len(lines) > _MANY else None
    found = model.tag(lines, batch_size=batch_size, progress=progress)
    rows = [
        {"text": line, "spans": [asdict(span) for span in spans]}
        for line, spans in zip(lines, found, strict=True)
    ]
    terminal.document(
        {"labels": list(model.labels), "texts": rows}, None if terminal.as_json else _table(found)
    )


def _table(found: Sequence[Sequence[Span]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("text", "span", "label", "probability")
    for number, spans in enumerate(found, 1):
        for span in spans:
            shown = span.text if len(span.text) <= 60 else span.text[:59] + "…"
            table.add_row(str(number), Text(shown), Text(span.label), f"{span.probability:.3f}")
    return table
