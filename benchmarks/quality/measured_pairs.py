"""How far an encoder–decoder is from its original, on inputs and what is to be written of them.

Both encoders read the same input, and both decoders are given the same output, token by token behind the
token that answers begin with: every token of it is predicted, the end that the tokenizer puts there as well.
Then both write of each input by themselves, greedily.

Where nothing says what is to be written, that is what the original writes. A perplexity of this would say
how predictable a model is, not how good: none is measured then.

The input of a quality measurement of an encoder–decoder: texts, and what is to be written of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.model.model_names import directory_of
from ...compress.text.calibration_rows import pairs
from ...compress.text.corpus import CORPORA, Corpus, paragraphs
from ...errors import EdgepressError, InputError
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress, ProgressTask
from ..records.answer_subjects import AnswerModel
from ..records.subjects import NamedModel, OpenModel
from .greedy_text import (
    Across,
    Numbers,
    Replies,
    Replying,
    Written,
    answer_scores,
    reply_nats,
    reply_scores,
    sample_replies,
    score_written,
    score_written_across,
)
from .held_out_text import Placement, chosen, is_cut
from .measured_kinds import Measured, MeasuredPart
from .scores import Scores
from .subgroups.items import GroupText, grouped_texts
from .token_damage import Ids, TokenDamage

# Tokens of a reply at most: of a translation or a summary most are shorter.
NEW_TOKENS = 128
OF_ORIGINAL = "the original's greedy replies"
# Metrics that ask how likely an output is, which says nothing where a model wrote it.
_LIKELIHOODS = frozenset({"perplexity", "bits_per_byte"})


def measured_pairs(
    subject: OpenModel, original: OpenModel, corpus: Corpus, sample: MeasuredPart, progress: Progress
) -> Measured:
    """Run both models, encoder–decoders, on ``sample`` of the pairs or inputs of ``corpus``."""
    given = chosen_pairs(corpus, count=sample.sentences, placement=sample.placement)
    theirs = _Side.of(original, given, sample.length)
    mine = theirs if subject is original else _Side.of(subject, given, sample.length)
    new_tokens = min(NEW_TOKENS, theirs.answering.writes, mine.answering.writes)
    damage: list[TokenDamage] = []
    replied: Replies = []
    if sample.replies or given.outputs is None:
        replied = theirs.replies(new_tokens, "writing replies with the original", progress)
    workload: dict[str, Any] = {
        "pairs": len(given.inputs),
        "outputs": OF_ORIGINAL if given.outputs is None else "given",
        "cut_inputs": theirs.cut_inputs,
        "cut_outputs": theirs.cut_outputs,
        "new_tokens": new_tokens,
        "text_sha256": given.sha256,
    }
    scores: dict[str, Scores] = {}
    if is_cut(subject, original):
        if theirs.outputs:
            scores = score_written_across(_across(mine, theirs), len(theirs.outputs), progress=progress)
    else:
        outputs, kept = theirs.outputs or replied, damage if sample.tokens else None
        scores = score_written(_written(mine, theirs, outputs), len(outputs), damage=kept, progress=progress)
        workload["predictions"] = sum(map(len, outputs))
    if given.outputs is None:
        scores = {name: found for name, found in scores.items() if name not in _LIKELIHOODS}
    if not sample.replies:
        _require_any(scores)
        return Measured(scores, workload, damage)
    answers = replied if mine is theirs else mine.replies(new_tokens, "writing replies", progress)
    scores |= _of_replies(mine, theirs, answers, replied, progress)
    read, own = mine.texts(answers), theirs.texts(replied)
    scores |= answer_scores(read, own)
    return Measured(scores, workload, damage, sample_replies(given.inputs, own, read))


def _require_any(scores: dict[str, Scores]) -> None:
    if not scores:
        raise InputError(
            "of other tokens than the original's nothing is measured on its replies",
            fix="give rows with an input and an output",
        )


@dataclass(frozen=True)
class _Side:
    """One model, and the pairs in its tokens: ``inputs`` and ``outputs``, none where nothing says them; how
    many of each were longer than they may be."""

    answering: AnswerModel
    tokenizer: Tokenizer
    inputs: list[list[int]]
    outputs: list[list[int]]
    cut_inputs: int
    cut_outputs: int

    @classmethod
    def of(cls, model: OpenModel, given: Pairs, length: int) -> _Side:
        answering = model.answering
        assert answering is not None
        tokenizer, room = model.tokenizer, min(length, answering.reads)
        whole = [len(ids) for ids in tokenizer.encode_batch(given.inputs)]
        inputs = tokenizer.encode_batch(given.inputs, max_length=room)
        # An output is cut where it is: an end that is not there would be predicted.
        outputs = tokenizer.encode_batch(given.outputs or [])
        most = min(length, answering.writes)
        found = cls(
            answering,
            tokenizer,
            inputs,
            [ids[:most] for ids in outputs],
            sum(size > room for size in whole),
            sum(len(ids) > most for ids in outputs),
        )
        found._require_tokens(given)
        return found

    def _require_tokens(self, given: Pairs) -> None:
        texts = [*given.inputs, *(given.outputs or [])]
        for text, ids in zip(texts, [*self.inputs, *self.outputs], strict=True):
            if not ids:
                raise InputError(f"the tokenizer makes no tokens of {text[:80]!r}", fix="leave the row out")
            if max(ids) >= self.answering.vocabulary:
                raise InputError(
                    f"{text[:80]!r} gives token id {max(ids)}, but the model has {self.answering.vocabulary}",
                    why="the tokenizer does not belong to this model",
                    fix="put the model's own tokenizer.json beside its weights",
                )

    def replies(self, new_tokens: int, title: str, progress: Progress) -> list[list[int]]:
        """What it writes of each input; those of like length side by side, so that little is padding."""
        order = sorted(range(len(self.inputs)), key=lambda place: len(self.inputs[place]))
        with progress.task(title, len(order)) as task:
            writing = Replying(task, len(order), new_tokens)
            given = [self.inputs[place] for place in order]
            found = self.answering.answers(given, new_tokens, writing.step)
            writing.end()
        return [ids for _, ids in sorted(zip(order, found, strict=True))]

    def texts(self, replies: Replies) -> list[str]:
        """Replies as they are read."""
        return [self.tokenizer.decode(ids) for ids in replies]

    def behind_start(self, ids: Sequence[int]) -> Ids:
        """``ids`` as they are written."""
        return np.array([self.answering.start, *ids], np.int64)

    def nats(self, replies: Replies, task: ProgressTask) -> Numbers:
        """Of each reply to an input the mean negative log-likelihood of its tokens."""
        found = []
        for place, reply in enumerate(replies):
            logits = _Answering(self, place).logits(self.behind_start(reply[:-1])[None])[0]
            found.append(reply_nats(logits, reply))
            task.advance(1)
        return np.array(found)


class _Answering:
    """One model that has read an input, as token metrics ask it."""

    def __init__(self, side: _Side, place: int) -> None:
        self.side, self.tokenizer = side, side.tokenizer
        self.read = np.array([side.inputs[place]], np.int64)

    def logits(self, input_ids: Ids) -> NDArray[np.float32]:
        return self.side.answering.logits(self.read, input_ids)


def _written(mine: _Side, theirs: _Side, outputs: Replies) -> Iterator[Written]:
    for place, ids in enumerate(outputs):
        own = _Answering(theirs, place)
        yield Written(own if mine is theirs else _Answering(mine, place), own, theirs.behind_start(ids))


def _across(mine: _Side, theirs: _Side) -> Iterator[Across]:
    for place in range(len(theirs.outputs)):
        ours, own = (
            (_Answering(side, place), side.behind_start(side.outputs[place])) for side in (mine, theirs)
        )
        yield Across(*ours, *own)


def _of_replies(
    mine: _Side, theirs: _Side, answers: Replies, replied: Replies, progress: Progress
) -> dict[str, Scores]:
    """Every metric of what both wrote by themselves."""
    nats = own = None
    if mine.tokenizer.tokens == theirs.tokenizer.tokens:
        with progress.task("reading the replies", len(replied) * (1 if answers is replied else 2)) as task:
            own = theirs.nats(replied, task)
            nats = own if answers is replied else theirs.nats(answers, task)
    return reply_scores(answers, replied, nats, own)


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
