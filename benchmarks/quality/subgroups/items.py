"""What slices are made of: texts of a group, and choices between two sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ....compress.text.corpus import Corpus
from ....runtime.text.tokenizer import Tokenizer
from .token_damage import TokenDamage

Kind = Literal["decoder", "encoder", "classifier"]


@dataclass(frozen=True)
class GroupText:
    """A ``text`` of a ``group``. Texts of equal ``content`` say the same, in other languages say: their
    difficulty is shared, and only what is left of it tells groups apart.
    """

    group: str
    text: str
    content: str


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


class SliceFile(Protocol):
    """What every file in ``benchmarks/quality/slices`` has, and one of the functions."""

    title: str
    kinds: frozenset[Kind]
    of: Literal["texts", "choices", "tokens", "rows"]
    tested: bool


class TokenSlice(SliceFile, Protocol):
    """A slice of the measured text's tokens."""

    def bands(self, tokens: TokenDamage, tokenizer: Tokenizer) -> Sequence[str]: ...


def grouped_texts(corpus: Corpus) -> list[GroupText]:
    """The documents that have a group; each is a content of its own."""
    if not corpus.groups:
        return []
    rows = zip(corpus.texts(), corpus.groups, strict=True)
    return [GroupText(group, text, str(number)) for number, (text, group) in enumerate(rows) if group]
