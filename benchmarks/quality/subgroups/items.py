"""What slices are made of: texts of a group, choices between two sentences, and associations of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from .... import plugins
from ....compress.text.corpus import Corpus, labelled_texts
from ....compress.text.protected_text import ProtectedText, read_protected
from ....errors import InputError
from ....runtime.text.tokenizer import Tokenizer
from ..token_damage import TokenDamage

Kind = Literal["decoder", "encoder", "classifier"]
PROTECTED = "slice="
PACKAGE = f"{__package__.rpartition('.')[0]}.slices"


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
    from .user_slice import SUFFIX, read_slice  # which makes these items

    if name.endswith(SUFFIX):
        return cast(SliceFile, read_slice(Path(name)))
    return cast(SliceFile, plugins.load(PACKAGE, name, "slice"))


def protected_text(name: str, field: str = "text") -> ProtectedText:
    """What ``compress --protect`` reads of ``slice=NAME``, or of the name alone: the text that a slice keeps
    for calibration, which is never measured, or a file, of pairs both sentences.
    """
    from .user_slice import pairs_of  # which makes these items

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
