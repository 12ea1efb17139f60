"""A slice of the user's: a ``.jsonl`` file whose rows have a ``group`` and a text, or two sentences.

- ``{"group", "text"}``: texts. Rows of one ``content`` say the same, in other languages say.
- ``{"group", "good", "bad"}``: a minimal pair, of which the first is right.
- ``{"group", "first", "second"}``: a pair of which neither is right; only a change of mind counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ....compress.text.jsonl_rows import json_objects
from ....errors import InputError
from ....files.storage import read_regular
from .items import Choice, GroupText, Kind

SUFFIX = ".jsonl"
_PAIRS = (("good", "bad"), ("first", "second"))
_EVERY: frozenset[Kind] = frozenset({"decoder", "encoder", "classifier"})


@dataclass
class UserSlice:
    """What a file in ``benchmarks/quality/slices`` has, of the rows of a file."""

    title: str
    of: Literal["texts", "choices"]
    kinds: frozenset[Kind]
    items: Sequence[Any]
    tested: bool = True

    def texts(self, seed: int) -> Sequence[GroupText]:
        """Those of the file."""
        return self.items

    def choices(self, seed: int) -> Sequence[Choice]:
        """Those of the file."""
        return self.items


def read_slice(path: Path) -> UserSlice:
    """The slice in ``path``."""
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path} has no rows", fix='write lines like {"group": "…", "text": "…"}')
    keys = _keys(rows[0][1], f"{path}:{rows[0][0]}")
    for number, row in rows:
        if _keys(row, f"{path}:{number}") != keys:
            raise InputError(f"{path}:{number} has other keys than the first row", fix="one kind a file")
    given = [(row, str(row.get("content", number))) for number, row in rows]
    if len(keys) == 1:
        texts = [GroupText(row["group"], row["text"], content) for row, content in given]
        return UserSlice(f"group of {path.name}", "texts", _EVERY, texts)
    one, other = keys
    pairs = [Choice(row["group"], row[one], row[other], keys == _PAIRS[0], content) for row, content in given]
    return UserSlice(f"group of {path.name}", "choices", frozenset({"decoder"}), pairs)


def pairs_of(path: Path, field: str) -> Sequence[Choice]:
    """The pairs of a file whose rows have two sentences and no ``field``; none of any other file."""
    _, first = next(_rows(path), (0, {})) if path.suffix == SUFFIX else (0, {})
    if field in first or not any(first.keys() >= set(keys) for keys in _PAIRS):
        return ()
    return read_slice(path).items


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the slice {path}", why=str(error)) from None
    return json_objects(path, text, InputError)


def _keys(row: dict[str, Any], where: str) -> tuple[str, ...]:
    """The keys of the sentences of a row."""
    for keys in (*_PAIRS, ("text",)):
        if all(isinstance(row.get(key), str) and row[key].strip() for key in ("group", *keys)):
            return keys
    raise InputError(
        f"{where} has no group with a text or a pair of sentences",
        fix='write {"group": "…", "text": "…"}; or, instead of "text", "good" and "bad", or "first" and '
        '"second"',
    )
