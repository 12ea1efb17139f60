"""What slices are made of: texts of a group, choices between two sentences, and associations of words.

A slice of the user's: a ``.jsonl`` file whose rows have a ``group`` and a text, or two sentences.

- ``{"group", "text"}``: texts. Rows of one ``content`` say the same, in other languages say.
- ``{"group", "good", "bad"}``: a minimal pair, of which the first is right.
- ``{"group", "first", "second"}``: a pair of which neither is right; only a change of mind counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from .... import plugins
from ....compress.text.corpus import Corpus, labelled_texts
from ....compress.text.jsonl_rows import json_objects
from ....errors import InputError
from ....files.storage import read_regular
from ....runtime.text.tokenizer import Tokenizer
from ..token_damage import TokenDamage

if TYPE_CHECKING:
    from ....compress.text.protected_text import ProtectedText

Kind = Literal["decoder", "encoder", "classifier"]
PROTECTED = "slice="
PACKAGE = f"{__package__.rpartition('.')[0]}.slices"
SUFFIX = ".jsonl"
_PAIRS = (("good", "bad"), ("first", "second"))
_EVERY: frozenset[Kind] = frozenset({"decoder", "encoder", "classifier"})


@dataclass(frozen=True)
class GroupText:
    """A ``text`` of a ``group``. Texts of equal ``content`` say the same, in other languages say: their
    difficulty is shared, and only what is left of it tells groups apart. ``label`` is the place of the right
    one among a classifier's, where it is known.
    """

    group: str
    text: str
    content: str
    label: int | None = None


@dataclass(frozen=True)
class Choice:
    """Two sentences, of which a decoder finds one likelier. ``right`` is whether the first one is correct
    and the second is not; else neither is, and only a change of mind counts. ``content`` is as of a text.
    """

    group: str
    first: str
    second: str
    right: bool
    content: str


# Of each word the texts that stand for it.
Words = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Association:
    """Words of two targets and of two attributes: is the first target nearer to the first attribute than the
    second target is?
    """

    group: str
    first: Words
    second: Words
    attribute: Words
    other_attribute: Words


class _Described(Protocol):
    """What every file in ``benchmarks/quality/slices`` has."""

    title: str
    kinds: frozenset[Kind]
    tested: bool


class TextSlice(_Described, Protocol):
    """Texts in groups."""

    of: Literal["texts"]

    def texts(self, seed: int) -> Sequence[GroupText]: ...


class ChoiceSlice(_Described, Protocol):
    """Pairs of sentences in groups."""

    of: Literal["choices"]

    def choices(self, seed: int) -> Sequence[Choice]: ...


class AssociationSlice(_Described, Protocol):
    """Associations, each a group."""

    of: Literal["associations"]

    def associations(self) -> Sequence[Association]: ...


class TokenSlice(_Described, Protocol):
    """The measured text's tokens in groups."""

    of: Literal["tokens"]

    def bands(self, tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]: ...


class RowSlice(_Described, Protocol):
    """The rows of the user's text in groups."""

    of: Literal["rows"]


SliceFile = TextSlice | ChoiceSlice | AssociationSlice | TokenSlice | RowSlice


def load_slice(name: str) -> SliceFile:
    """The slice ``name``, or that of a user's ``.jsonl`` file."""
    if name.endswith(SUFFIX):
        return cast(SliceFile, read_slice(Path(name)))
    return cast(SliceFile, plugins.load(PACKAGE, name, "slice"))


def protected_text(name: str, field: str = "text") -> ProtectedText:
    """What ``compress --protect`` reads of ``slice=NAME``, or of the name alone: the text that a slice keeps
    for calibration, which is never measured, or a file, of pairs both sentences.
    """
    from ....compress.text.protected_text import ProtectedText, read_protected  # imports torch

    name = name.removeprefix(PROTECTED)
    if Path(name).suffix or Path(name).exists():
        pairs = pairs_of(Path(name), field)
        both = [(one.group, sentence) for one in pairs for sentence in (one.first, one.second)]
        return ProtectedText.of(Path(name).stem, both) if both else read_protected(name, field)
    found = kept_for_calibration(name)
    if found is None:
        raise InputError(
            f"the slice {name} has no text to calibrate with",
            fix=f"{', '.join(with_calibration())} have, or give a .jsonl file",
        )
    return found


def with_calibration() -> list[str]:
    """The packaged slices that keep text for calibration."""
    files = {one: plugins.load(PACKAGE, one, "slice") for one in plugins.names(PACKAGE)}
    return [one for one, file in files.items() if hasattr(file, "calibration")]


def kept_for_calibration(name: str) -> ProtectedText | None:
    """The text that the slice ``name`` keeps for calibration; None where it has none."""
    from ....compress.text.protected_text import ProtectedText

    texts = getattr(load_slice(name), "calibration", None)
    return None if texts is None else ProtectedText.of(name, [(one.group, one.text) for one in texts()])


def grouped_texts(corpus: Corpus, labels: Sequence[str] = ()) -> list[GroupText]:
    """The documents that have a group, each a content of its own, with their labels among a classifier's
    ``labels``.
    """
    if not corpus.groups:
        return []
    known = corpus.labels and labels
    right = [label for _, label in labelled_texts(corpus, labels)] if known else [None] * len(corpus.groups)
    rows = zip(corpus.texts(), corpus.groups, right, strict=True)
    return [
        GroupText(group, text, str(number), label)
        for number, (text, group, label) in enumerate(rows)
        if group
    ]


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
