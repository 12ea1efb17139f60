"""``edgepress rerank``: order texts by how well they answer a query, with a reranker bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...terminal import Terminal
from .. import bundle_options as verb_options
from ..verb import Verb, output

if TYPE_CHECKING:
    from rich.table import Table

# Texts beyond which there is a bar.
_MANY = 64


@click.command("rerank", cls=Verb)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("query")
@click.argument("texts", nargs=-1)
@verb_options.text_file
@verb_options.batch_size
@verb_options.session
@output
def command(
    bundle: Path,
    query: str,
    texts: tuple[str, ...],
    file: Path | None,
    batch_size: int,
    threads: int | None,
    provider: str,
    terminal: Terminal,
) -> None:
    """Order TEXTS (or a file of them) by how well they answer QUERY, with the reranker BUNDLE."""
    from ...runtime.bundle.bundle import Bundle
    from ...runtime.engine.classify import ClassifierModel

    lines = verb_options.given_texts(texts, file, "order")
    opened = Bundle.open(bundle, weights_later=True)
    model = ClassifierModel(opened, threads=threads, provider=provider)
    if model.encoder.session.misplaced:
        terminal.say(f"WARNING: {model.encoder.session.misplaced}")
    progress = terminal.progress if len(lines) > _MANY else None
    scores = model.rerank(query, lines, batch_size=batch_size, progress=progress)
    ranked = sorted(zip(scores, lines, strict=True), key=lambda pair: -pair[0])
    rows = [{"text": line, "score": score} for score, line in ranked]
    terminal.document({"query": query, "texts": rows}, None if terminal.as_json else _table(ranked))


def _table(ranked: list[tuple[float, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("text", "score")
    for score, text in ranked:
        table.add_row(Text(text if len(text) <= 60 else text[:59] + "…"), f"{score:.3f}")
    return table
