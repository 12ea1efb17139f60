"""``TaggerModel``: the spans of a text that a classifier of tokens names: persons, places, parts of speech;
or the span that answers a question.

A word has the label of its first token. Labels may say where a span begins, ``B-PER``, and goes on, ``I-PER``
(Ramshaw and Marcus 1995, cmp-lg/9505040); words side by side with one label are one span, unless the second
begins another. ``O`` is no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...terminal.progress import Progress
from .encoder import BATCH_SIZE, WINDOW, EncoderModel
from .encoder_answers import Vectors, answer_span

NONE = "O"
ANSWER = "answer"


@dataclass(frozen=True)
class Span:
    """The characters ``start`` to ``end`` of a text; ``probability`` is the mean over its words."""

    label: str
    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class _Word:
    label: str
    begins: bool
    start: int
    end: int
    probability: float


class TaggerModel(EncoderModel):
    """The bundle of a classifier of tokens, or of one that finds answers, loaded."""

    def tag(
        self, texts: Sequence[str], *, batch_size: int = BATCH_SIZE, progress: Progress | None = None
    ) -> list[list[Span]]:
        """The spans of each text, in the order of the texts; what is behind the model's length is not read.

        Raises:
            InputError: the bundle is no classifier of tokens, or a batch size below 1.
        """
        self._check(answers=False)
        texts = [texts] if isinstance(texts, str) else texts
        found: list[list[Span]] = []
        for start in range(0, len(texts), WINDOW):
            some = texts[start : start + WINDOW]
            split = self.tokenizer.encode_words(some, max_length=self.encoder.max_length)
            ids = [parts[0] for parts in split]
            logits = self.encoder.token_logits(ids, batch_size, progress=progress)
            for text, (_, *places), rows in zip(some, split, logits, strict=True):
                found.append(_spans(text, list(self._words(places, rows))))
        return found

    def answer(
        self,
        question: str,
        texts: Sequence[str],
        *,
        batch_size: int = BATCH_SIZE,
        progress: Progress | None = None,
    ) -> list[list[Span]]:
        """The span of each text that answers ``question``, in the order of the texts; none of a text without
        a token.

        Raises:
            InputError: the bundle finds no answers, or a batch size below 1.
        """
        self._check(answers=True)
        texts = [texts] if isinstance(texts, str) else texts
        found: list[list[Span]] = []
        for start in range(0, len(texts), WINDOW):
            some = texts[start : start + WINDOW]
            pairs = [(question, text) for text in some]
            split = self.tokenizer.encode_pairs(pairs, max_length=self.encoder.max_length)
            ids, types = ([parts[part] for parts in split] for part in range(2))
            logits = self.encoder.token_logits(ids, batch_size, types=types, progress=progress)
            for text, (_, _, *places), rows in zip(some, split, logits, strict=True):
                span = answer_span(rows, *places)
                found.append([] if span is None else [_cut(ANSWER, text, *span)])
        return found

    def _check(self, *, answers: bool) -> None:
        section = self.encoder.section
        if self.labels and answers != (section.labelled == "span"):
            why = "finds no answers" if answers else "finds answers, and needs a question"
            raise InputError(f"this bundle {why}", fix=f"use: edgepress {section.verb[1]}")

    def _words(self, places: Sequence[Sequence[int]], logits: Vectors) -> Iterator[_Word]:
        """The words of a text, whose tokens have a word, a start and an end each in ``places``."""
        words, starts, ends = places
        exact = logits.astype(np.float64)
        odds = np.exp(exact - exact.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        for token, word in enumerate(words):
            if word < 0 or (token and words[token - 1] == word):
                continue
            behind = token
            while behind + 1 < len(words) and words[behind + 1] == word:
                behind += 1
            best = int(probabilities[token].argmax())
            place, _, kind = self.labels[best].partition("-")
            begins, label = (
                (place == "B", kind) if kind and place in ("B", "I") else (False, self.labels[best])
            )
            yield _Word(label, begins, starts[token], ends[behind], float(probabilities[token, best]))


def _spans(text: str, words: Sequence[_Word]) -> list[Span]:
    groups: list[list[_Word]] = []
    before = NONE
    for word in words:
        if word.label != NONE:
            if word.label == before and not word.begins:
                groups[-1].append(word)
            else:
                groups.append([word])
        before = word.label
    return [_span(text, group) for group in groups]


def _span(text: str, words: Sequence[_Word]) -> Span:
    mean = sum(word.probability for word in words) / len(words)
    return _cut(words[0].label, text, words[0].start, words[-1].end, mean)


def _cut(label: str, text: str, start: int, end: int, probability: float) -> Span:
    found = text[start:end]
    start += len(found) - len(found.lstrip())  # some tokenizers count the space before a word
    return Span(label, found.strip(), start, start + len(found.strip()), probability)
