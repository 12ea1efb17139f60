"""The labels of a classifier's texts: rows that say what they are, by the names or places the model knows."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from .corpus import Corpus, plain


def labelled_texts(corpus: Corpus, labels: Sequence[str]) -> list[tuple[str, int | None]]:
    """The documents as plain text, each with the place of its label in ``labels``; None where it has none.

    Raises:
        InputError: a label that is neither one of ``labels`` nor a number from 0 on.
    """
    places = {label: index for index, label in enumerate(labels)} | {i: i for i in range(len(labels))}
    strange = next((label for label in corpus.labels if label is not None and label not in places), None)
    if strange is not None:
        raise InputError(
            f"{corpus.source} has the label {strange!r}, which this classifier does not give",
            fix=f"its labels are {', '.join(labels)}, or their numbers from 0 to {len(labels) - 1}",
        )
    pairs = zip(corpus.documents, corpus.labels, strict=True)
    return [(plain(document), None if label is None else places[label]) for document, label in pairs]
