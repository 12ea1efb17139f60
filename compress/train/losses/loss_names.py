"""Which losses ``distill`` knows, which of them a kind of model has, and the terms that they stand for."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ....errors import TrainingError
from ...model.anatomy import Anatomy, module_name
from ...model.hearing.speech_prompt import speech_prompt
from ...model.pooling import pooling_of
from ...pipeline.stage import Stage
from .logit_terms import CrossEntropy, LogitDivergence, Term
from .objective import LabelCrossEntropy, LabelDivergence, Weight
from .sequence_terms import AnswerDivergence, SequenceCrossEntropy, SpokenSequence
from .state_terms import AttentionMaps, EmbeddingDistance, HiddenDistance, Relations, StateDistance

Loss = Literal[
    "forward_kl",
    "reverse_kl",
    "jensen_shannon",
    "cross_entropy",
    "cosine",
    "embedding",
    "label_kl",
    "label_cross_entropy",
    "states",
    "hidden",
    "relations",
    "attention",
    "sequence",
]
_OF_DECODERS: tuple[Loss, ...] = ("forward_kl", "reverse_kl", "jensen_shannon", "cross_entropy")
_OF_ENCODERS: tuple[Loss, ...] = ("cosine", "embedding", "label_kl", "label_cross_entropy")
_OF_BOTH: tuple[Loss, ...] = ("states", "hidden", "relations", "attention")
_OF_KIND: dict[str, tuple[Loss, ...]] = {
    "decoder": (*_OF_DECODERS, *_OF_BOTH),
    "encoder": (*_OF_ENCODERS, *_OF_BOTH),
    "encoder_decoder": ("sequence", "forward_kl", "reverse_kl", "jensen_shannon"),
}
_DEFAULT: dict[str, dict[Loss, Weight]] = {
    "decoder": {"forward_kl": 1.0},
    "encoder": {"states": 1.0, "relations": 1.0},
    "classifier": {"label_kl": 1.0, "states": 1.0, "relations": 1.0},
    "encoder_decoder": {"sequence": 1.0},
}


_OUTPUTS: dict[str, dict[Loss, Weight]] = {
    "decoder": {"forward_kl": 1.0},
    "encoder": {"states": 1.0},
    "classifier": {"label_kl": 1.0, "states": 1.0},
    "encoder_decoder": {"forward_kl": 1.0},
}


def losses_of(anatomy: Anatomy, asked: Mapping[Loss, Weight] | Literal["outputs"]) -> dict[Loss, Weight]:
    """The weights of the losses ``asked`` for, or of those that such a model has by default; ``outputs`` are
    those that look at nothing inside of it.
    """
    kind = "classifier" if anatomy.labels_texts else anatomy.kind
    if asked == "outputs":
        return dict(_OUTPUTS[kind])
    default = _DEFAULT[kind]
    for name in asked:
        if name not in _OF_KIND[anatomy.kind]:
            raise TrainingError(
                f"the loss {name} is not one of {called(anatomy)}", fix=f"give others, by default {default}"
            )
    return dict(asked or default)


def called(anatomy: Anatomy) -> str:
    """The kind of a model in words."""
    return {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder–decoder"}[
        anatomy.kind
    ]


@dataclass(frozen=True)
class LossOptions:
    """What a recipe says of the losses; ``shared`` counts the ids that both models have."""

    temperature: float
    top_k: int
    seed: int
    relation_heads: int | None
    beams: int
    answer_tokens: int
    shared: Callable[[], int | None]


def term_of(name: Loss, stage: Stage, options: LossOptions) -> Term:
    """The term of a loss, of the student in ``stage.source`` and its teacher ``stage.original``."""
    mine, theirs = stage.source.anatomy, stage.original.anatomy
    if name == "sequence":
        return _sequence(stage, options)
    if name == "cross_entropy":
        return CrossEntropy(mine.logit_form)
    if name == "cosine" or name == "embedding":
        return EmbeddingDistance(pooling_of(stage.original.reader.path), cosine=name == "cosine")
    if name == "label_kl":
        return _label_divergence(mine, theirs, options.temperature)
    if name == "label_cross_entropy":
        return _label_cross_entropy(stage)
    if name == "states":
        return StateDistance()
    if name == "hidden":
        widths = (mine.hidden_size, theirs.hidden_size)
        return HiddenDistance(paired_blocks(mine, theirs), widths, options.seed, stage.device)
    if name == "relations":
        return _relations(mine, theirs, options.relation_heads)
    if name == "attention":
        return AttentionMaps(mine, theirs)
    kind = AnswerDivergence if mine.kind == "encoder_decoder" else LogitDivergence
    return kind(name, options.top_k, mine.logit_form, options.temperature, options.shared())


def _sequence(stage: Stage, options: LossOptions) -> SequenceCrossEntropy:
    student, teacher = stage.source.anatomy, stage.original.anatomy
    options.shared()  # refuses a student of another vocabulary
    if student.vocab_size < teacher.vocab_size:
        raise TrainingError(
            f"the student has embeddings for {student.vocab_size} tokens, "
            f"the teacher writes {teacher.vocab_size}",
            fix=f"give the student vocab_size {teacher.vocab_size}",
        )
    if teacher.hearing is None:
        return SequenceCrossEntropy(options.beams, options.answer_tokens)
    reader = stage.original.reader
    prompt = speech_prompt(reader.path, reader.config, teacher.vocab_size)
    longest = min(student.max_positions, teacher.max_positions)
    return SpokenSequence(options.beams, options.answer_tokens, prompt, longest)


def _label_divergence(student: Anatomy, teacher: Anatomy, temperature: float) -> LabelDivergence:
    mine, theirs = student.classifier, teacher.classifier
    labelled = student.labels_texts and teacher.labels_texts
    if not labelled or mine is None or theirs is None or mine.labels != theirs.labels:
        named = [", ".join(head.labels) if head is not None else "none" for head in (mine, theirs)]
        raise TrainingError(
            f"the loss label_kl is of two classifiers of texts with the same labels: the student has "
            f"{named[0]}, the teacher {named[1]}",
            fix="leave it out, or distill a …ForSequenceClassification from one",
        )
    return LabelDivergence(student, teacher, temperature)


def _label_cross_entropy(stage: Stage) -> LabelCrossEntropy:
    if stage.source.anatomy.classifier is None or not stage.source.anatomy.labels_texts:
        raise TrainingError(
            "the loss label_cross_entropy is of a classifier of texts, and the student is none",
            fix="leave it out, or distill a …ForSequenceClassification",
        )
    if len(stage.source.anatomy.classifier.labels) == 1:
        raise TrainingError(
            "the loss label_cross_entropy chooses among labels, and a reranker has one",
            fix="take label_kl, which learns the teacher's scores",
        )
    calibration = stage.calibration
    if calibration is None or all(batch.labels is None for batch in calibration.batches):
        raise TrainingError(
            "the loss label_cross_entropy needs texts that say what they are",
            fix='calibrate with a .jsonl file whose rows are {"text": …, "label": …}, or leave it out',
        )
    return LabelCrossEntropy(stage.source.anatomy)


def _relations(student: Anatomy, teacher: Anatomy, heads: int | None) -> Relations:
    heads = heads or teacher.blocks[-1].attention.kv_heads
    for anatomy in (student, teacher):
        attention = anatomy.blocks[-1].attention
        widths = [linear.out_features for linear in (attention.q, attention.k, attention.v)]
        if any(width % heads for width in widths):
            raise TrainingError(
                f"{heads} relation heads do not divide {widths} channels of q, k and v",
                fix="give relation_heads that divide the student's and the teacher's",
            )
    return Relations(student, teacher, heads)


def paired_blocks(student: Anatomy, teacher: Anatomy) -> dict[str, str]:
    """Each block of the student, and the teacher's at the same share of the depth; the last with the last."""
    mine, theirs = len(student.blocks), len(teacher.blocks)
    return {
        module_name(student, block.prefix): module_name(
            teacher, teacher.blocks[math.ceil((index + 1) * theirs / mine) - 1].prefix
        )
        for index, block in enumerate(student.blocks)
    }
