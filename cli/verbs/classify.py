"""``edgepress classify``: name the label of each text or image with a classifier bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..encoder_question import EncoderQuestion, asks, bundle, shortened
from ..verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from ...runtime.engine.classify import Classification


@click.command("classify", cls=Verb, old={"--file": "--text", "-f": "--text"})
@bundle
@asks("classify", images=True)
def command(question: EncoderQuestion) -> None:
    """Name the label of TEXTS (or a file of them, or images) with the classifier BUNDLE, and how probable it
    is.
    """
    from ...runtime.engine.classify import ClassifierModel

    lines, terminal = question.lines, question.terminal
    what = "image" if question.images else "text"
    model = question.images_opened() if question.images else question.opened(ClassifierModel)
    found = model.classify(lines, **question.reading())
    rows = [
        {what: line, **asdict(one), "labels": list(one.labels)}
        for line, one in zip(lines, found, strict=True)
    ]
    terminal.document(
        {"labels": list(model.labels), f"{what}s": rows},
        None if terminal.as_json else _table(what, lines, found),
    )


def _table(what: str, lines: list[str], found: Sequence[Classification]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(what, "label", "probability")
    for line, one in zip(lines, found, strict=True):
        each = [f"{one.probabilities[label]:.3f}" for label in one.labels]
        table.add_row(Text(shortened(line)), Text(", ".join(one.labels) or "none"), ", ".join(each))
    return table
