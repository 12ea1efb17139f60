"""Whether two models can be compared on a text, by their headers: before anything of them is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import InputError
from ...runtime.engine.label_form import LabelForm
from ...runtime.text.tokenizer import Tokenizer
from ..records.named_model import NamedModel
from .held_out_text import Placement, measured_windows

# Characters that both tokenizers split, to see whether they do it alike.
_PROBE = 4000


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
