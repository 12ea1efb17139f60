"""Text of groups that a compression is to spare: calibration reads it beside its own text, and ``allocate``
spares the group that loses most.

A file of it is ``.jsonl`` whose rows have a ``group``; any other text is one group, called like the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import CalibrationError
from ...files.storage import sha256_json
from ...runtime.text.tokenizer import Tokenizer
from .corpus import plain, read_corpus
from .probe_text import refuse_probe
from .token_batch import (
    SEPARATOR,
    Ids,
    Row,
    TokenBatch,
    batched,
    starts_with_bos,
    token_stream,
    windows,
)

# Of all groups together, for each token of the calibration's own text.
SHARE = 0.5
# Fewer tokens of a group say little about it.
LEAST = 64


@dataclass(frozen=True)
class ProtectedText:
    """The ``texts`` of each group of ``name``, a slice or a file."""

    name: str
    texts: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, name: str, rows: Iterable[tuple[str, str]]) -> ProtectedText:
        """From ``(group, text)``."""
        found: dict[str, list[str]] = {}
        for group, text in rows:
            found.setdefault(group, []).append(text)
        return cls(name, tuple((group, tuple(texts)) for group, texts in found.items()))

    @property
    def sha256(self) -> str:
        """Hash of name, groups and texts."""
        return sha256_json([self.name, [[group, list(texts)] for group, texts in self.texts]])


@dataclass(frozen=True)
class ProtectedGroup:
    """What is read of a group: ``batches`` with ``tokens`` in all, of a text of ``size`` bytes."""

    name: str
    batches: tuple[TokenBatch, ...]
    tokens: int
    size: int


def read_protected(path: str | Path, field: str = "text") -> ProtectedText:
    """The text in ``path``; raises what :func:`~edgepress.compress.text.corpus.read_corpus` does."""
    corpus = read_corpus(str(path), field=field)
    name = Path(path).stem
    groups = corpus.groups or (name,) * len(corpus.documents)
    rows = zip(groups, corpus.documents, strict=True)
    return ProtectedText.of(name, [(group, plain(document)) for group, document in rows if group])


def protected_groups(
    given: Sequence[ProtectedText], tokenizer: Tokenizer, *, decodes: bool, tokens: int, length: int
) -> tuple[ProtectedGroup, ...]:
    """The batches of each group: together about :data:`SHARE` of so many ``tokens``, as much of each group,
    in rows of at most ``length``.
    """
    groups = [(f"{one.name}: {group}", texts) for one in given for group, texts in one.texts]
    each = max(LEAST, int(SHARE * tokens) // max(1, len(groups)))
    read = _windows if decodes else _rows
    found = []
    for name, texts in groups:
        refuse_probe(texts, name)
        rows = read(texts, tokenizer, each, length)
        held = sum(map(len, rows))
        if held < min(LEAST, each):
            raise CalibrationError(
                f"the protected group {name!r} has {held} tokens of text, fewer than {LEAST}",
                fix="give more text of it, or leave it out",
            )
        batches = tuple(batched(list(map(Row, rows)), len(rows), tokenizer.pad_id or 0))
        size = sum(len(tokenizer.decode(row.tolist()).encode()) for row in rows)
        found.append(ProtectedGroup(name, batches, held, size))
    return tuple(found)


def _windows(texts: Sequence[str], tokenizer: Tokenizer, tokens: int, length: int) -> list[Ids]:
    """Rows of one length, for a decoder: it gets no padding."""
    stream = token_stream(tokenizer, texts, separator=SEPARATOR, limit=tokens)
    bos = tokenizer.bos_id if starts_with_bos(tokenizer) else None
    count = max(1, -(-len(stream) // length))
    return list(windows(stream, max(2, len(stream) // count), bos=bos)) if len(stream) else []


def _rows(texts: Sequence[str], tokenizer: Tokenizer, tokens: int, length: int) -> list[Ids]:
    """A row a text, for an encoder."""
    rows: list[Ids] = []
    for ids in tokenizer.encode_batch(list(texts), max_length=length):
        if sum(map(len, rows)) >= tokens:
            break
        rows.append(np.asarray(ids, np.int64))
    return rows
