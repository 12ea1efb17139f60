"""``edgepress rerank``: order texts by how well they answer a query, with a reranker bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..encoder_question import EncoderQuestion, asks, bundle, shortened
from ..verb import Verb

if TYPE_CHECKING:
    from rich.table import Table


@click.command("rerank", cls=Verb)
@bundle
@click.argument("query")
@asks("order")
def command(question: EncoderQuestion, query: str) -> None:
    """Order TEXTS (or a file of them) by how well they answer QUERY, with the reranker BUNDLE."""
    from ...runtime.engine.classify import ClassifierModel

    terminal = question.terminal
    scores = question.opened(ClassifierModel).rerank(query, question.lines, **question.reading())
    ranked = sorted(zip(scores, question.lines, strict=True), key=lambda pair: -pair[0])
    rows = [{"text": line, "score": score} for score, line in ranked]
    terminal.document({"query": query, "texts": rows}, None if terminal.as_json else _table(ranked))


def _table(ranked: list[tuple[float, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("text", "score")
    for score, text in ranked:
        table.add_row(Text(shortened(text)), f"{score:.3f}")
    return table
