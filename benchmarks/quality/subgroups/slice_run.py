"""``SliceRun``: both models on the items of a slice, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ....errors import InputError
from ....terminal.progress import Progress, ProgressTask
from ...records.subjects import OpenModel
from ..token_damage import TokenDamage
from .associations import association_harms
from .group_harm import GroupHarm, Items, harms
from .items import Choice, ChoiceSlice, GroupText, Kind, RowSlice, SliceFile, TextSlice, TokenSlice
from .kept_rows import KeptRows
from .measured_items import (
    Run,
    classifier_texts,
    decoder_choices,
    decoder_texts,
    encoder_texts,
    token_bands,
    written_texts,
)

Item = TypeVar("Item", GroupText, Choice)
_TEXTS = {"decoder": decoder_texts, "encoder": encoder_texts, "classifier": classifier_texts}


@dataclass(frozen=True)
class Given:
    """What slices are taken from: what the tokens of a decoder's windows of the measured text lost, and the
    rows of a text that have a group. ``every``: of texts that groups share, articles say, one in so many.
    ``half``: of what items share, articles or sentences, only those at even (0) or odd (1) places.
    ``written``: of an encoder–decoder those rows, each with what the tokens lost that are written of it."""

    tokens: Sequence[TokenDamage] = ()
    rows: Sequence[GroupText] = ()
    seed: int = 0
    every: int = 1
    half: int | None = None
    written: Sequence[tuple[GroupText, TokenDamage]] = ()


@dataclass(frozen=True)
class SliceRun:
    """Both models, where what is measured is kept and shown, and the ``choices`` of all slices that have
    some."""

    subject: OpenModel
    original: OpenModel
    kept: KeptRows
    progress: Progress
    choices: list[Items] = field(default_factory=list)

    def harms(self, name: str, file: SliceFile, kind: Kind, given: Given) -> tuple[str, list[GroupHarm]]:
        """What each group of the slice ``name`` loses of a model of ``kind``, and the unit of that."""
        if kind not in file.kinds:
            raise InputError(f"this slice is not for a model of kind {kind!r}", fix="leave it out")
        if file.of == "associations":
            tests = file.associations()
            with self.progress.task("comparing associations", len(tests)) as task:
                found = association_harms(self.subject, self.original, tests, given.seed, task)
            return "effect", found
        items = self.items(name, file, kind, given)
        return items.unit, harms(items, given.seed)

    def items(
        self, name: str, file: TextSlice | ChoiceSlice | TokenSlice | RowSlice, kind: Kind, given: Given
    ) -> Items:
        """What both models made of the texts, choices or tokens of the slice ``name``."""
        if file.of == "tokens":
            if not given.tokens:
                raise InputError("this slice needs windows of text, read by both models in the same tokens")
            return token_bands(file, given.tokens, self.original.tokenizer)
        if file.of == "choices":
            choices = _part(file.choices(given.seed), 1, given.half)
            with self.progress.task(f"comparing sentences by {file.title}", len(choices)) as task:
                self.choices.append(decoder_choices(self._run(name, choices, task), choices))
            return self.choices[-1]
        if file.of == "rows" and given.written:
            return written_texts(given.written, self.original.tokenizer)
        texts = file.texts(given.seed) if file.of == "texts" else given.rows
        if not texts:
            raise InputError(
                "no row of the text has a group", fix='give --text a .jsonl file whose rows have a "group"'
            )
        texts = _part(texts, given.every if file.of == "texts" else 1, given.half)
        with self.progress.task(f"reading texts by {file.title}", len(texts)) as task:
            return _TEXTS[kind](self._run(name, texts, task), texts)

    def _run(self, name: str, items: Sequence[object], task: ProgressTask) -> Run:
        return Run(self.subject, self.original, self.kept.of(name, items), task)


def _part(items: Sequence[Item], every: int, half: int | None) -> Sequence[Item]:
    """The items of one content in ``every``, and of these of one ``half``."""
    chosen = list(dict.fromkeys(one.content for one in items))[::every]
    kept = set(chosen if half is None else chosen[half::2])
    return [one for one in items if one.content in kept]
