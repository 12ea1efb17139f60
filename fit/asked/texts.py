"""The text in three parts: what candidates are calibrated on, what the search judges them by (development),
and what nothing sees until the result is there (held out). No document is in two of them: of equal ones the
first counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from ...compress.text.calibration_rows import pairs
from ...compress.text.corpus import CORPORA, Corpus, plain, read_corpus
from ...compress.text.jsonl_rows import Document, Label
from ...compress.text.token_batch import token_stream
from ...errors import CalibrationError, InputError
from ...files.storage import sha256_file, sha256_json, write_atomic
from ...runtime.text.tokenizer import Tokenizer

# Runs of a file's documents, in their order: neighbours may be alike, so that parts are cut in few places.
RUNS = 12
DEVELOPMENT, HELD_OUT = (2, 8), (5, 11)
_WINDOWS = 16

Row = tuple[Document, Label, str | None, str | None]


@dataclass(frozen=True)
class Texts:
    """``calibration`` is a demo corpus, whose articles have a split of their own, or a file as the others; of
    images and sounds all are folders. ``repeated``: documents that were left out, since they were there
    already; ``documents``: by part, of a demo corpus without what it is calibrated on.
    """

    calibration: str
    development: Path
    held_out: Path
    repeated: int = 0
    documents: Mapping[str, int] = field(default_factory=dict)

    @property
    def hashes(self) -> list[str]:
        """Of the parts."""
        parts = [self.development, self.held_out]
        parts += [] if self.calibration in CORPORA else [Path(self.calibration)]
        return [_hash_of(path) for path in parts]


def _hash_of(part: Path) -> str:
    """Of a file, or of the files in a folder, in their order."""
    return sha256_json(list(map(sha256_file, sorted(part.iterdir())))) if part.is_dir() else sha256_file(part)


def split_text(source: str, field: str, directory: Path, *, paired: bool = False) -> Texts:
    """Write the parts of ``source``, a file, a directory or a demo corpus, into ``directory``; ``paired`` as
    of :func:`~edgepress.compress.text.corpus.read_corpus`.
    """
    split = "held-out" if source in CORPORA else "calibration"
    corpus = read_corpus(source, field=field, split=split, paired=paired)  # type: ignore[arg-type]
    whole = _rows(corpus, paired=paired)
    rows = _distinct(whole)
    repeated = len(whole) - len(rows)
    directory.mkdir(parents=True, exist_ok=True)
    if source in CORPORA:
        halves = {"development": rows[::2], "held-out": rows[1::2]}
        counts = {name: len(found) for name, found in halves.items()}
        development, held_out = (_write(directory, name, found) for name, found in halves.items())
        return Texts(source, development, held_out, repeated, counts)
    run_of = _runs([document for document, *_ in rows])
    parts: dict[str, list[Row]] = {"calibration": [], "development": [], "held-out": []}
    for run, row in zip(run_of, rows, strict=True):
        name = "development" if run in DEVELOPMENT else "held-out" if run in HELD_OUT else "calibration"
        parts[name].append(row)
    if not all(parts.values()):
        count = f"{len(rows)} different" if repeated else f"{len(rows)}"
        raise CalibrationError(
            f"{source} has {count} documents, too few to calibrate on, to search by and to judge by",
            why="no choice is made on the text that the result is judged by",
            fix="give more documents: paragraphs of a .txt file, rows of a .jsonl file, or several files",
        )
    calibration, development, held_out = (_write(directory, name, found) for name, found in parts.items())
    counts = {name: len(found) for name, found in parts.items()}
    return Texts(str(calibration), development, held_out, repeated, counts)


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """The first row of each document: two that differ in label, group or target alone are the same text."""
    first: dict[str, Row] = {}
    for row in rows:
        text = row[0] if isinstance(row[0], str) else json.dumps(row[0], sort_keys=True)
        first.setdefault(text.strip(), row)
    return list(first.values())


def _rows(corpus: Corpus, *, paired: bool) -> list[Row]:
    """Each document with what its row says of it; a target only where it is ``paired``."""
    none = [None] * len(corpus.documents)
    if paired:
        pairs(corpus)  # refuses what only some rows have, before they are parted
    labels: Sequence[Label] = corpus.labels or none
    groups: Sequence[str | None] = corpus.groups or none
    targets: Sequence[str | None] = (corpus.targets if paired else ()) or none
    return list(zip(corpus.documents, labels, groups, targets, strict=True))


def _runs(documents: Sequence[Document]) -> list[int]:
    """The run of each document: runs are about as long as one another."""
    lengths = [len(plain(document)) for document in documents]
    ends = list(accumulate(lengths))
    return [
        min(RUNS - 1, int(RUNS * (end - length / 2) / ends[-1]))
        for end, length in zip(ends, lengths, strict=True)
    ]


def _write(directory: Path, name: str, rows: Sequence[Row]) -> Path:
    path = directory / f"{name}.jsonl"
    lines = []
    for document, label, group, target in rows:
        row: dict[str, Any] = {"text": document}
        if not isinstance(document, str):
            row = {"messages": list(document)}
        row |= ({} if label is None else {"label": label}) | ({"group": group} if group else {})
        row |= {"target": target} if target else {}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def require_groups(path: Path) -> None:
    """Refuse a text without groups."""
    if not any(read_corpus(str(path)).groups):
        raise InputError(
            "no row of the text has a group", fix='give --text a .jsonl file whose rows have a "group"'
        )


def windows_of(path: Path, tokenizer: Tokenizer, length: int) -> int:
    """How many windows of ``length`` tokens are measured on the text at ``path``."""
    tokens = len(token_stream(tokenizer, read_corpus(str(path)).texts(), limit=_WINDOWS * length))
    if tokens < length:
        raise CalibrationError(
            f"the {path.stem} part of the text has {tokens} tokens, a window has {length}",
            why="a sixth of the text is judged by, another sixth is held out until the end",
            fix="give more text, or a smaller --length",
        )
    return min(_WINDOWS, tokens // length)
