"""Text from a file, a directory or a demo corpus, checked before anything long begins, with a classifier's
labels where rows have them.

A ``.jsonl`` file holds a document per line (:mod:`.jsonl_rows`). Any other file is prose, whose paragraphs
(separated by blank lines) are its documents. A directory is all its ``.txt`` and ``.jsonl`` files, by name.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...errors import CalibrationError, InputError, UnknownName, nearest
from ...files.storage import read_regular, sha256_file, sha256_json
from .demo_corpora import DUMP, Split, articles, data_file
from .jsonl_rows import FIELD, Document, Label, TextRow, json_documents, json_rows

LIMIT = 64 << 20

CORPORA: dict[str, Callable[[Split], list[str]]] = {"wikipedia": articles}
LICENSES = {"wikipedia": {"name": "CC-BY-SA-3.0", "said_by": "Wikipedia, when it was dumped in May 2016"}}

_Value = TypeVar("_Value")

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True)
class Corpus:
    """Documents in their order, with what was found besides.

    Attributes:
        documents: texts or conversations, none of them empty; duplicates are still there.
        source: what was asked for, as the user wrote it.
        empty: number of rows without text that were left out.
        labels: the label of each document, in their order; empty where no row has one.
        groups: the ``group`` of each row's document, in their order; empty where no row has one.
        targets: what is to be written of each document, in their order; empty where no row says it.
        duplicates: number of documents that repeat an earlier one.
    """

    documents: tuple[Document, ...]
    source: str
    empty: int = 0
    labels: tuple[Label, ...] = ()
    groups: tuple[str | None, ...] = ()
    targets: tuple[str | None, ...] = ()

    @property
    def duplicates(self) -> int:
        return len(self.documents) - len(self.distinct())

    def distinct(self) -> list[Document]:
        """The documents without repetitions."""
        first: dict[str, Document] = {}
        for document in self.documents:
            first.setdefault(_identity(document), document)
        return list(first.values())

    def texts(self) -> list[str]:
        """All documents as plain text; the turns of a conversation are separated by a blank line."""
        return [plain(document) for document in self.documents]


def plain(document: Document) -> str:
    """A document as text: a conversation is the content of its turns, without any template."""
    if isinstance(document, str):
        return document
    return "\n\n".join(str(message["content"]) for message in document)


def paragraphs(text: str) -> list[str]:
    """The parts of ``text`` between blank lines, without the empty ones."""
    return [part.strip() for part in _BLANK_LINE.split(text) if part.strip()]


def texts_from(source: str, field: str = FIELD, split: Split = "calibration") -> list[str]:
    """The documents of :func:`read_corpus` as plain text, in order."""
    return read_corpus(source, field=field, split=split).texts()


def read_corpus(
    source: str, *, field: str = FIELD, split: Split = "calibration", paired: bool = False
) -> Corpus:
    """Read and check ``source``: the name of a demo corpus, a file or a directory.

    Args:
        field: key of the text in ``.jsonl`` rows; rows without it may have ``messages``.
        split: which articles of a demo corpus; files have no splits.
        paired: for a model that reads one text and writes another: rows may be ``input`` and ``output``.
    """
    _require_rows(source, field)
    if source in CORPORA:
        return Corpus(tuple(CORPORA[source](split)), source)
    files = _files(source)
    _require_size(files, source)
    rows = [row for file in files for row in _rows(file, field, paired)]
    kept = [row for row in rows if plain(row[0]).strip()]
    documents, labels, groups, targets = zip(*kept, strict=True) if kept else ((), (), (), ())
    empty = len(rows) - len(kept)
    corpus = Corpus(documents, source, empty, _if_any(labels), _if_any(groups), _if_any(targets))
    _require_content(corpus)
    return corpus


def require_text(source: str, field: str = FIELD) -> None:
    """Refuse what names no text, and files without any: raises as :func:`read_corpus` does. It stops at the
    first document that holds text.
    """
    _require_rows(source, field)
    if source in CORPORA:
        data_file(DUMP)
        return
    files = _files(source)
    _require_size(files, source)
    if not any(plain(document).strip() for file in files for document in _documents(file, field)):
        raise CalibrationError(f"{source} holds no text")


def _documents(file: Path, field: str) -> Iterable[Document]:
    text = _decoded(file)
    return [text] if file.suffix != ".jsonl" else json_documents(file, text, field)


def _require_rows(source: str, field: str) -> None:
    if field != FIELD and (source in CORPORA or all(file.suffix != ".jsonl" for file in _files(source))):
        raise InputError(
            f"{source} has no field {field!r}: it is plain text",
            fix="leave --field out; it names the key of the text in the rows of .jsonl files",
        )


def text_paths(*sources: str | None) -> list[Path]:
    """Those of ``sources`` that are files and directories, not demo corpora."""
    return [Path(source) for source in sources if source is not None and source not in CORPORA]


def text_sha256(source: str) -> str:
    """Hex SHA-256 of the text at ``source``, as :func:`read_corpus` finds it: of the one file, or of the
    names and hashes of several.
    """
    files = [data_file(DUMP)] if source in CORPORA else _files(source)
    hashes = {file.relative_to(source).as_posix(): sha256_file(file) for file in files if len(files) > 1}
    return sha256_json(hashes) if hashes else sha256_file(files[0])


def _identity(document: Document) -> str:
    return document if isinstance(document, str) else json.dumps(document, sort_keys=True)


def _files(source: str) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(p for suffix in ("*.txt", "*.jsonl") for p in path.rglob(suffix) if p.is_file())
        if not found:
            raise CalibrationError(f"directory {path} holds no .txt or .jsonl file")
        return found
    if path.exists():
        return [path]  # a pipe or a device: refused when it is read
    if path.suffix or len(path.parts) > 1:
        raise InputError(
            f"there is no text at {path}", fix=f"give a file, a directory or one of: {', '.join(CORPORA)}"
        )
    near = nearest(source, CORPORA)
    hint = f"did you mean {near!r}? " if near else ""
    raise UnknownName(
        "text", source, CORPORA, fix=f"{hint}known: {', '.join(CORPORA)}; a file or directory by its path"
    )


def _require_size(files: list[Path], source: str) -> None:
    size = sum(file.stat().st_size for file in files)
    if size > LIMIT:
        raise CalibrationError(
            f"{source} holds {size / 1e6:.0f} MB of text, more than {LIMIT >> 20} MB",
            why="calibration and measurement need some hundred thousand tokens; all of it would be tokenised",
            fix="take an excerpt, for example: head -c 20M FILE > excerpt.txt",
        )


def _require_content(corpus: Corpus) -> None:
    count = len(corpus.documents)
    if not count:
        blank = f" ({corpus.empty} empty documents)" if corpus.empty else ""
        raise CalibrationError(f"{corpus.source} holds no text{blank}")
    if count > 1 and corpus.duplicates == count - 1:
        raise CalibrationError(
            f"{corpus.source} holds {count} documents that are all the same",
            fix="give text that varies: statistics of one repeated document describe nothing else",
        )


def _if_any(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
    return values if any(value is not None for value in values) else ()


def _rows(file: Path, field: str, paired: bool) -> list[TextRow]:
    text = _decoded(file)
    if file.suffix != ".jsonl":
        return [TextRow(part) for part in paragraphs(text)]
    return list(json_rows(file, text, field, paired=paired))


def _decoded(file: Path) -> str:
    try:
        return read_regular(file).decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"{file} is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}",
            fix=f"convert it, for example: iconv -f LATIN1 -t UTF-8 {file.name}",
        ) from None
    except OSError as error:
        raise CalibrationError(f"cannot read {file}", why=str(error)) from None


def labelled_texts(corpus: Corpus, labels: Sequence[str]) -> list[tuple[str, int | None]]:
    """The documents as plain text, each with the place of its label in ``labels``; None where it has none."""
    places = {label: index for index, label in enumerate(labels)} | {i: i for i in range(len(labels))}
    strange = next((label for label in corpus.labels if label is not None and label not in places), None)
    if strange is not None:
        raise InputError(
            f"{corpus.source} has the label {strange!r}, which this classifier does not give",
            fix=f"its labels are {', '.join(labels)}, or their numbers from 0 to {len(labels) - 1}",
        )
    pairs = zip(corpus.documents, corpus.labels, strict=True)
    return [(plain(document), None if label is None else places[label]) for document, label in pairs]
