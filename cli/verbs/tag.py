"""``edgepress tag``: name the spans of each text with the bundle of a classifier of tokens, or the span that
answers a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..encoder_question import EncoderQuestion, asks, bundle, shortened
from ..verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from ...runtime.engine.tag import Span


@click.command("tag", cls=Verb)
@bundle
@click.option("--question", help="Find the span that answers it, with a bundle made for that.")
@asks("tag")
def command(asked: EncoderQuestion, question: str | None) -> None:
    """Name the spans of TEXTS (or of a file of them), such as persons and places, with the tagger BUNDLE."""
    from ...runtime.engine.tag import TaggerModel

    lines, terminal = asked.lines, asked.terminal
    model = asked.opened(TaggerModel)
    if question is None:
        found = model.tag(lines, **asked.reading())
    else:
        found = model.answer(question, lines, **asked.reading())
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
            table.add_row(
                str(number), Text(shortened(span.text)), Text(span.label), f"{span.probability:.3f}"
            )
    return table
