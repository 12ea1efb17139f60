"""What is measured of each kind of model, and on how much of a text: decoders, encoders, classifiers.

What an encoder or a classifier does with a few built-in sentences, beside its original, to be read: the
nearest neighbours of each, or its label.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.text.corpus import Corpus
from ...compress.text.demo_corpora import PAIR_FILES, pairs
from ...runtime.engine.encoder_answers import LabelForm
from ...terminal.progress import Progress
from ..records.conditions import clip
from ..records.record import SampleAnswer
from ..records.subjects import OpenModel
from .accuracy import score_across, score_labels, score_windows
from .embedding_scores import EncoderTexts, score_embeddings
from .greedy_text import score_greedy
from .held_out_text import (
    Placement,
    classes_of_texts,
    is_cut,
    measured_passages,
    measured_rows,
    measured_sentences,
    measured_windows,
    require_room,
)
from .scores import Scores, log_softmax
from .token_damage import TokenDamage

DEFAULT_WINDOWS = 16
DEFAULT_LENGTH = 512
DEFAULT_SENTENCES = 256
# Passages that are searched among, and texts of the linear probe: enough for intervals of a few per cent.
PASSAGES, PROBED = 500, 256
NEAREST = 3
_LONGEST_LABEL = 80
ASKED = (
    "How do I get rid of a coffee stain on a white shirt?",
    "The service was slow, but the food made up for it.",
    "Interest rates rose again this spring.",
)
# Three or more on each of the three subjects, near in meaning or only in words, and others.
SENTENCES = (
    "Rub some baking soda and water into the cloth, then wash it cold.",
    "He spilled his drink over the letter.",
    "White shirts go well with a dark suit.",
    "The best coffee comes from the mountains of Ethiopia.",
    "Wine marks come out of a tablecloth with salt.",
    "Iron linen while it is still damp.",
    "We waited an hour for our table, yet dinner was delicious.",
    "The waiter was friendly and quick.",
    "The soup was cold and too salty.",
    "The bus service ends at midnight.",
    "I would order the fish there any time.",
    "Slow cooking makes tough meat tender.",
    "The central bank made borrowing more expensive in April.",
    "Mortgages cost more than they did a year ago.",
    "Spring flowers bloom in the park.",
    "Her interest in birds began in school.",
    "Prices of bread and milk went up.",
    "The river rose after days of rain.",
    "Our team won the match in the last minute.",
    "The train to the coast leaves at nine.",
    "She learned to play the violin as a child.",
    "A new vaccine protects against malaria.",
    "The telescope found water on a distant planet.",
    "My phone loses its charge by noon.",
)


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


def nearest_sentences(subject: OpenModel, original: OpenModel) -> list[SampleAnswer]:
    """Of each sentence that is asked, the nearest of the others, with their cosine."""
    mine, theirs = _neighbours(subject), _neighbours(original)
    return _answers(mine, theirs)


def sample_labels(subject: OpenModel, original: OpenModel) -> list[SampleAnswer]:
    """The likeliest label of each sentence, with its probability."""
    return _answers(_labels(subject), _labels(original))


def _answers(mine: list[str], theirs: list[str]) -> list[SampleAnswer]:
    return [
        SampleAnswer(prompt=asked, original=before, compressed=after)
        for asked, before, after in zip(ASKED, theirs, mine, strict=True)
    ]


def _neighbours(model: OpenModel) -> list[str]:
    asked, others = _directions(model, ASKED), _directions(model, SENTENCES)
    cosines = asked @ others.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    return [
        "\n".join(f"{row[place]:.2f} {SENTENCES[place]}" for place in places)
        for row, places in zip(cosines, nearest, strict=True)
    ]


def _directions(model: OpenModel, texts: tuple[str, ...]) -> NDArray[np.float64]:
    vectors = model.embeddings(texts).astype(np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _labels(model: OpenModel) -> list[str]:
    rows = np.exp(log_softmax(model.label_logits(ASKED)))
    return [f"{row.max():.2f} {clip(model.labels[row.argmax()], _LONGEST_LABEL)}" for row in rows]
