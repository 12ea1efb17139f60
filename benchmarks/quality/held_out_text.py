"""The input of a quality measurement: token windows for a decoder; sentences, halves of passages and
classes of texts for an encoder; rows with labels for a classifier; spread or first.

Spread over the whole text by default: sixteen windows of one article would say little about another.

Whether two models can be compared on a text, by their headers: before anything of them is loaded.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...compress.text.corpus import Corpus, labelled_texts, paragraphs
from ...compress.text.token_batch import starts_with_bos, token_stream, windows
from ...errors import InputError, UnknownName
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.text.tokenizer import Tokenizer
from ..records.subjects import NamedModel

Placement = Literal["spread", "first"]
PLACEMENTS = ("spread", "first")
# A passage, half a minute of reading at most: longer ones cost time and are found more easily.
PASSAGE_WORDS, MOST_WORDS = 32, 96
TEXTS_OF_A_CLASS = 8
# Characters that both tokenizers split, to see whether they do it alike.
_PROBE = 4000


def measured_windows(
    tokenizer: Tokenizer, texts: Sequence[str], *, count: int, length: int, placement: Placement
) -> NDArray[np.int64]:
    """``[count, length]`` windows of the texts: evenly spaced over all of them, or the ``first`` ones."""
    if count < 1 or length < 2:
        raise InputError(f"validation needs at least 1 window of 2 tokens, not {count} of {length}")
    limit = count * length if placement == "first" else None
    stream = token_stream(tokenizer, texts, limit=limit)
    found = windows(stream, length, bos=tokenizer.bos_id if starts_with_bos(tokenizer) else None)
    if len(found) < count:
        raise InputError(
            f"the text has {len(stream)} tokens, {count} windows of {length} need {count * length}",
            fix=f"use --windows {len(found)}, a smaller --length, or more text"
            if len(found)
            else "use a smaller --length, or more text",
        )
    return found[chosen(len(found), count, placement)]


def measured_sentences(texts: Sequence[str], *, count: int, placement: Placement) -> list[str]:
    """``count`` distinct paragraphs of the texts, or all when there are fewer."""
    if count < 1:
        raise InputError(f"validation needs at least 1 sentence, not {count}")
    found = list(dict.fromkeys(part for text in texts for part in paragraphs(text)))
    return [found[index] for index in chosen(len(found), min(count, len(found)), placement)]


def measured_passages(texts: Sequence[str], *, count: int, placement: Placement) -> list[tuple[str, str]]:
    """At most ``count`` distinct paragraphs, each as two halves: it is cut between the sentences that leave
    them most alike in length, or between words where it is one sentence. Those of less than
    :data:`PASSAGE_WORDS` words are left out: there would be nothing to search for.
    """
    found = list(dict.fromkeys(part for text in texts for part in paragraphs(text)))
    long = [words[:MOST_WORDS] for part in found if len(words := part.split()) >= PASSAGE_WORDS]
    return [_halves(long[index]) for index in chosen(len(long), min(count, len(long)), placement)]


def _halves(words: list[str]) -> tuple[str, str]:
    middle = len(words) // 2
    ends = [place for place in range(1, len(words)) if words[place - 1].endswith((".", "!", "?", "。"))]
    cut = min(ends, key=lambda place: abs(place - middle), default=middle)
    cut = cut if PASSAGE_WORDS // 4 <= cut <= len(words) - PASSAGE_WORDS // 4 else middle
    return " ".join(words[:cut]), " ".join(words[cut:])


def classes_of_texts(corpus: Corpus, *, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """Texts, an even number of each class, and their classes ``[n]`` from 0: the labels of a corpus that has
    them, else the documents that paragraphs belong to. At most ``count`` texts, of classes that have
    :data:`TEXTS_OF_A_CLASS` and more; none where these are fewer than two.
    """
    grouped: dict[str, list[str]] = {}
    if corpus.labels:
        for text, label in zip(corpus.texts(), corpus.labels, strict=True):
            if label is not None:
                grouped.setdefault(str(label), []).append(text)
    else:
        for number, text in enumerate(corpus.texts()):
            long = (part for part in paragraphs(text) if len(part.split()) >= PASSAGE_WORDS // 2)
            grouped[str(number)] = list(dict.fromkeys(long))
    large = [found for found in grouped.values() if len(found) >= TEXTS_OF_A_CLASS]
    each = max(TEXTS_OF_A_CLASS, count // max(1, len(large))) // 2 * 2
    kept = [found[: min(each, len(found) // 2 * 2)] for found in large[: count // TEXTS_OF_A_CLASS]]
    if len(kept) < 2:
        return [], np.zeros(0, np.int64)
    return (
        [" ".join(text.split()[:MOST_WORDS]) for found in kept for text in found],
        np.repeat(np.arange(len(kept)), [len(found) for found in kept]),
    )


def measured_rows(
    corpus: Corpus, labels: Sequence[str], *, count: int, placement: Placement
) -> tuple[list[str], NDArray[np.int64]]:
    """``count`` whole documents that have a label, or all when there are fewer, and their labels ``[count]``
    as places in ``labels``.
    """
    if count < 1:
        raise InputError(f"validation needs at least 1 text, not {count}")
    rows = [(text, place) for text, place in labelled_texts(corpus, labels) if place is not None]
    kept = [rows[index] for index in chosen(len(rows), min(count, len(rows)), placement)]
    return [text for text, _ in kept], np.array([place for _, place in kept], np.int64)


def chosen(available: int, count: int, placement: Placement) -> NDArray[np.int64]:
    """The places of ``count`` of what is ``available``."""
    if placement not in PLACEMENTS:
        raise UnknownName("placement", placement, PLACEMENTS)
    if placement == "first":
        return np.arange(count)
    return np.linspace(0, available - 1, count).round().astype(np.int64)


class Labelled(Protocol):
    """A model that says its labels: of a classifier; empty for all others; and how their logits are read."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def label_form(self) -> LabelForm: ...


class Tokenizing(Protocol):
    """A model that has a tokenizer."""

    @property
    def tokenizer(self) -> Tokenizer: ...


def require_labels(subject: Labelled, original: Labelled) -> None:
    """Raise InputError where the two have other labels, or read them otherwise."""
    if (subject.labels, subject.label_form) != (original.labels, original.label_form):
        raise InputError(
            f"a model with the labels {_named(subject)} is compared with one with {_named(original)}",
            fix="compare with the model that it was made from",
        )


def _named(model: Labelled) -> str:
    return ", ".join(model.labels) or "none"


def is_cut(subject: Tokenizing, original: Tokenizing) -> bool:
    """Whether the subject's tokens are some of the original's, and not all of them."""
    return subject.tokenizer.tokens < original.tokenizer.tokens


def require_alike(
    subject: NamedModel, original: NamedModel, texts: Sequence[str], slices: Sequence[str]
) -> None:
    """Raise InputError where the two cannot be compared on ``texts``, or by ``slices``."""
    require_labels(subject, original)
    if slices and original.label_form != LabelForm():
        raise InputError(
            "slices are not measured of a model that labels tokens, or gives a text several labels",
            fix="leave --slices out",
        )
    if is_cut(subject, original):
        return
    probe = "\n\n".join(texts)[:_PROBE]
    if subject.tokenizer.encode(probe) != original.tokenizer.encode(probe):
        raise InputError(
            "the two models split the same text into different tokens",
            why="logits at a position would answer different questions",
            fix="compare with the model that it was made from",
        )


def require_room(lengths: Sequence[int], length: int) -> None:
    """Raise InputError where a window of ``length`` tokens is longer than one of the ``lengths`` that models
    take."""
    if length > min(lengths):
        raise InputError(
            f"windows of {length} tokens do not fit: the models take {min(lengths)}",
            fix=f"use --length {min(lengths)}, or less",
        )


def require_windows(
    subject: NamedModel,
    original: NamedModel,
    texts: Sequence[str],
    *,
    count: int,
    length: int,
    placement: Placement,
) -> None:
    """Raise InputError where two decoders do not take windows of ``length``, or ``texts`` have fewer of them
    than ``count``."""
    require_room([subject.context_length, original.context_length], length)
    measured_windows(original.tokenizer, texts, count=count, length=length, placement=placement)
