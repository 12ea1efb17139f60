"""What is measured of each kind of model, and on how much of a text: decoders, encoders, classifiers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...compress.text.corpus import Corpus
from ...compress.text.demo_corpora import PAIR_FILES, pairs
from ...runtime.engine.label_form import LabelForm
from ...terminal.progress import Progress
from ..records.record import SampleAnswer
from ..records.subjects import OpenModel
from .accuracy import score_across, score_labels, score_windows
from .comparable import is_cut, require_room
from .embedding_scores import EncoderTexts, score_embeddings
from .greedy_text import score_greedy
from .held_out_text import (
    Placement,
    classes_of_texts,
    measured_passages,
    measured_rows,
    measured_sentences,
    measured_windows,
)
from .sample_neighbours import nearest_sentences, sample_labels
from .scores import Scores
from .token_damage import TokenDamage

DEFAULT_WINDOWS = 16
DEFAULT_LENGTH = 512
DEFAULT_SENTENCES = 256
# Passages that are searched among, and texts of the linear probe: enough for intervals of a few per cent.
PASSAGES, PROBED = 500, 256


@dataclass(frozen=True)
class MeasuredPart:
    """How much of the text is measured, and where in it; ``replies``: whether decoders write some.

    ``slices`` are names of groups that are compared, whose shared texts may be measured by one ``half``: the
    first (0) or the second (1) of every two.
    """

    windows: int = DEFAULT_WINDOWS
    length: int = DEFAULT_LENGTH
    sentences: int = DEFAULT_SENTENCES
    placement: Placement = "spread"
    replies: bool = True
    slices: Sequence[str] = ()
    half: int | None = None

    @property
    def tokens(self) -> bool:
        """Whether what each token of a decoder's windows lost is kept."""
        return bool(self.slices)


@dataclass(frozen=True)
class Measured:
    """Scores by metric, what they were measured on, what the tokens of a decoder's windows lost, where that
    is kept, and some answers."""

    scores: dict[str, Scores]
    workload: dict[str, Any]
    tokens: list[TokenDamage] = field(default_factory=list)
    answers: list[SampleAnswer] = field(default_factory=list)


def measured(
    subject: OpenModel, original: OpenModel, corpus: Corpus, sample: MeasuredPart, progress: Progress
) -> Measured:
    """Run both models, which are of one kind, on ``sample`` of the text ``corpus``."""
    if original.labels:
        return _classifiers(subject, original, corpus, sample, progress)
    measure = _decoders if original.kind == "decoder" else _encoders
    return measure(subject, original, corpus, sample, progress)


def _decoders(
    subject: OpenModel, original: OpenModel, corpus: Corpus, sample: MeasuredPart, progress: Progress
) -> Measured:
    require_room([subject.max_length, original.max_length], sample.length)
    ids = measured_windows(
        original.tokenizer,
        corpus.texts(),
        count=sample.windows,
        length=sample.length,
        placement=sample.placement,
    )
    workload = {
        "windows": sample.windows,
        "length": sample.length,
        "predictions": sample.windows * (sample.length - 1),
        "text_sha256": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest(),
    }
    for model in {id(one): one for one in (original, subject)}.values():
        model.read_ahead(ids)
    damage: list[TokenDamage] = []
    if is_cut(subject, original):
        scores = score_across(subject, original, ids, progress=progress)
    else:
        kept = damage if sample.tokens else None
        scores = score_windows(subject, original, ids, damage=kept, progress=progress)
    if not sample.replies:
        return Measured(scores, workload, damage)
    greedy, answers = score_greedy(subject, original, progress=progress)
    return Measured(scores | greedy, workload, damage, answers)


def _encoders(
    subject: OpenModel, original: OpenModel, corpus: Corpus, sample: MeasuredPart, progress: Progress
) -> Measured:
    texts, placement = corpus.texts(), sample.placement
    chosen = measured_sentences(texts, count=sample.sentences, placement=placement)
    passages = measured_passages(texts, count=PASSAGES, placement=placement)
    probed, classes = classes_of_texts(corpus, count=PROBED)
    given = EncoderTexts(chosen, passages, probed, classes, {name: pairs(name) for name in PAIR_FILES})
    workload = {
        "sentences": len(chosen),
        "passages": len(passages),
        "classes": int(classes.max()) + 1 if len(classes) else 0,
        "word_pairs": {name: len(found) for name, found in given.word_pairs.items()},
        "text_sha256": hashlib.sha256("\0".join(chosen).encode()).hexdigest(),
    }
    scores = score_embeddings(subject, original, given, progress=progress)
    return Measured(scores, workload, answers=nearest_sentences(subject, original))


def _classifiers(
    subject: OpenModel, original: OpenModel, corpus: Corpus, sample: MeasuredPart, progress: Progress
) -> Measured:
    count, placement = sample.sentences, sample.placement
    targets = None
    one_a_text = original.label_form == LabelForm()
    if corpus.labels and one_a_text:
        chosen, targets = measured_rows(corpus, original.labels, count=count, placement=placement)
    else:
        chosen = measured_sentences(corpus.texts(), count=count, placement=placement)
    workload = {
        "sentences": len(chosen),
        "labelled": targets is not None,
        "text_sha256": hashlib.sha256("\0".join(chosen).encode()).hexdigest(),
    }
    scores = score_labels(subject, original, chosen, targets, progress=progress)
    answers = sample_labels(subject, original) if one_a_text else []
    return Measured(scores, workload, answers=answers)
