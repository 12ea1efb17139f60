"""The input of a quality measurement of an encoder–decoder: texts, and what is to be written of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ...compress.model.model_names import directory_of
from ...compress.text.calibration_rows import pairs
from ...compress.text.corpus import CORPORA, Corpus, paragraphs
from ...errors import EdgepressError, InputError
from ..records.named_model import NamedModel
from .held_out_text import Placement, chosen
from .measured_kinds import MeasuredPart
from .subgroups.items import GroupText, grouped_texts
from .token_damage import TokenDamage


def answers_in_text(model: NamedModel) -> bool:
    """Whether ``model``, a bundle or what ``compress`` takes, reads text and writes another. False where it
    cannot be opened: whoever opens it says why."""
    with suppress(EdgepressError, OSError):
        if (bundle := model.bundle) is not None:
            return bundle.kind == "encoder_decoder" and bundle.encoder_decoder.sound is None
        directory = directory_of(model.name)
        if directory is not None and (directory / "config.json").is_file():
            anatomy = model.source.anatomy
            return anatomy.kind == "encoder_decoder" and anatomy.hearing is None
    return False


@dataclass(frozen=True)
class Pairs:
    """Inputs, and what is to be written of each; ``outputs`` is None where nothing says it."""

    inputs: list[str]
    outputs: list[str] | None

    @property
    def sha256(self) -> str:
        """Over all of them."""
        return hashlib.sha256("\0".join([*self.inputs, *(self.outputs or [])]).encode()).hexdigest()


def chosen_pairs(corpus: Corpus, *, count: int, placement: Placement) -> Pairs:
    """At most ``count`` distinct inputs of ``corpus``, spread over it or the first ones: its documents, of a
    demo corpus their paragraphs.
    """
    if count < 1:
        raise InputError(f"validation needs at least 1 input, not {count}")
    outputs, texts = pairs(corpus), corpus.texts()
    if corpus.source in CORPORA:
        texts = [part for text in texts for part in paragraphs(text)]
    found = list(dict.fromkeys(texts))
    inputs = [found[index] for index in chosen(len(found), min(count, len(found)), placement)]
    return Pairs(inputs, [outputs[text] for text in inputs] if outputs else None)


def grouped_pairs(
    corpus: Corpus, sample: MeasuredPart, lost: Sequence[TokenDamage]
) -> list[tuple[GroupText, TokenDamage]]:
    """The measured inputs that have a group, each with what the tokens of its output ``lost``."""
    groups = {one.text: one for one in reversed(grouped_texts(corpus))}  # of equal texts the first counts
    given = chosen_pairs(corpus, count=sample.sentences, placement=sample.placement)
    rows = zip(given.inputs, lost, strict=False)  # none of models with other tokens
    return [(groups[text], one) for text, one in rows if text in groups]
