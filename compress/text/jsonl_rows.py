"""Rows of a ``.jsonl`` file: an object each, with a text under a field or a conversation under ``messages``.

It may have the ``label`` of its text, its ``group``, or the ``target`` that a model is to write of it. For
a model that reads one text and writes another, rows may as well call the two ``input`` and ``output``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CalibrationError, EdgepressError

FIELD = "text"  # of the text in a row, where nothing else is said
_INPUT, _OUTPUTS = "input", ("target", "output")

Conversation = tuple[dict[str, Any], ...]
Document = str | Conversation
Label = str | int | None


class TextRow(NamedTuple):
    """A document, and what its row says of it."""

    document: Document
    label: Label = None
    group: str | None = None
    target: str | None = None


def json_rows(file: Path, text: str, field: str, *, paired: bool = False) -> Iterator[TextRow]:
    """The rows of ``text``, which is that of ``file``; ``paired`` as for
    :func:`~edgepress.compress.text.corpus.read_corpus`.
    """
    for number, row in json_objects(file, text, CalibrationError):
        where = f"{file}:{number}"
        label = row.get("label")
        # Of other kinds (scores, lists of labels) nothing is asked here: whoever reads labels refuses them.
        known = label if isinstance(label, str) or type(label) is int else None
        target = _target(row, where) if paired else _text(row.get("target"))
        named = _INPUT if paired and field == FIELD and _has_input_alone(row) else field
        yield TextRow(_document(row, named, where), known, _text(row.get("group")), target)


def json_documents(file: Path, text: str, field: str) -> Iterator[Document]:
    """The documents alone, whether rows are paired or not."""
    for number, row in json_objects(file, text, CalibrationError):
        named = _INPUT if field == FIELD and _has_input_alone(row) else field
        yield _document(row, named, f"{file}:{number}")


def json_objects(file: Path, text: str, error: type[EdgepressError]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every row of ``text``, which is that of ``file``; empty lines are none."""
    # Not splitlines(): a JSON string may hold U+2028, which is no end of a row.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as found:
            raise error(f"{file}:{number} is not JSON", why=str(found)) from None
        if not isinstance(row, dict):
            raise error(f"{file}:{number} is not a JSON object but a {type(row).__name__}")
        yield number, row


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _has_input_alone(row: dict[str, Any]) -> bool:
    return _INPUT in row and FIELD not in row and "messages" not in row


def _target(row: dict[str, Any], where: str) -> str | None:
    """What is written of a row's text; None where it does not say it."""
    named = next((key for key in _OUTPUTS if row.get(key) is not None), None)
    if named is None:
        return None
    found = _text(row[named])
    if found is None:
        raise CalibrationError(
            f"{where}: the field {named!r} is not what a model is to write: it holds no text",
            fix='a pair is a row such as {"input": "translate …", "output": "…"}',
        )
    return found


def _document(row: dict[str, Any], field: str, where: str) -> Document:
    value = row.get(field, row.get("messages"))
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return tuple(value)
    if value is None:
        raise CalibrationError(
            f"{where} has no field {field!r}",
            fix=f"name one of its fields with --field: {', '.join(map(repr, row)) or 'it has none'}",
        )
    raise CalibrationError(
        f"{where}: the field {field!r} is neither text nor a list of messages",
        fix='a message is an object such as {"role": "user", "content": "…"}',
    )


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
    )
