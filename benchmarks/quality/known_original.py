"""``KnownOriginal``: an original that answers from the cache what it has answered before, bit for bit.

Candidates are compared with one original on one text, and half of the work is the original's. What it replies
to prompts is kept, an encoder's embeddings and a classifier's logits are, and of a decoder's windows and own
replies the states behind its blocks: its head makes the same logits of them. What depends on a candidate, its
replies as the original reads them, is not, and neither is what slices ask.

Answers of an original that are computed once: rows of numbers, and replies. What the cache holds in their
place is looked at before it is taken for them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ...runtime.engine.batch_decoder import REPLIES_AT_ONCE
from ...runtime.engine.encoder_answers import LabelForm
from ...runtime.text.greedy_loops import prompt_ids
from ..records import record
from ..records.answer_cache import LARGEST, AnswerCache, arithmetic_of
from ..records.answer_subjects import AnswerModel, BehindBlocks
from ..records.subjects import OpenModel, Step

Replies = list[list[int]]
REPLIES = "replies"
Ids = NDArray[np.int64]
Numbers = NDArray[np.float32]
STATES, EMBEDDINGS, LABELS = "last states", "embeddings", "logits of labels"


class Computing(Protocol):
    """A model that is open: the hash of all that its answers are made of, and what runs it."""

    runtime: dict[str, Any]

    @property
    def content_sha256(self) -> str: ...


def cache_of(model: Computing) -> AnswerCache:
    """That of ``model``; it keeps nothing on a GPU, which may sum in another order each time."""
    here = model.runtime.get("device", "cpu") == "cpu"
    return AnswerCache(arithmetic_of(model.content_sha256, model.runtime) if here else None)


def known_rows(
    cache: AnswerCache, what: str, asked: Any, count: int, compute: Callable[[], Numbers]
) -> Numbers:
    """So many rows of numbers, as the answer to what is ``asked``."""
    found = (cache.read(what, asked) or {}).get("rows")
    if is_finite(found) and found.ndim > 1 and len(found) == count:
        cache.use(what)
        return found
    rows = compute()
    cache.write(what, asked, {"rows": rows})
    return rows


def known_replies(
    cache: AnswerCache, asked: Any, count: int, limits: tuple[int, int], write: Callable[[], Replies]
) -> Replies:
    """So many replies; ``limits`` are the tokens of one, and above which no id is."""
    question = [asked, *limits, REPLIES_AT_ONCE]
    known = _ragged(cache.read(REPLIES, question) or {}, count, *limits)
    if known is not None:
        cache.use(REPLIES)
        return known
    replies = write()
    if replies:
        lengths = np.array([len(reply) for reply in replies], np.int64)
        ids = np.array([token for reply in replies for token in reply], np.int64)
        cache.write(REPLIES, question, {"ids": ids, "lengths": lengths})
    return replies


def _ragged(found: dict[str, NDArray[Any]], count: int, new_tokens: int, vocabulary: int) -> Replies | None:
    """So many replies, where the arrays hold such."""
    ids, lengths = found.get("ids"), found.get("lengths")
    if ids is None or lengths is None or ids.dtype != np.int64 or lengths.dtype != np.int64:
        return None
    fits = ids.ndim == 1 and lengths.shape == (count,) and lengths.sum() == len(ids) > 0
    if not fits or lengths.min() < 1 or lengths.max() > new_tokens:
        return None
    if ids.min() < 0 or ids.max() >= vocabulary:
        return None
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def is_finite(rows: NDArray[Any] | None) -> TypeGuard[Numbers]:
    """Whether they are numbers in float32, all of them finite."""
    return rows is not None and rows.dtype == np.float32 and bool(np.isfinite(rows).all())


class KnownOriginal:
    """``model`` with its ``cache``. Otherwise as :class:`.subjects.OpenModel`."""

    def __init__(self, model: OpenModel, cache: AnswerCache) -> None:
        self._model, self._cache = model, cache
        self.kind: Literal["decoder", "encoder"] = model.kind
        self.tokenizer, self.max_length, self.runtime = model.tokenizer, model.max_length, model.runtime
        self.labels: tuple[str, ...] = model.labels
        self.label_form: LabelForm = model.label_form
        self.behind_blocks: BehindBlocks | None = model.behind_blocks
        self.content_sha256 = model.content_sha256
        self.answering: AnswerModel | None = None
        if model.answering is not None:
            self.answering = _KnownAnswers(model.answering, cache)
        self._texts: list[_Texts] = []

    def read_ahead(self, windows: Ids) -> None:
        """As :meth:`.subjects.OpenModel.read_ahead`; the model does not read windows whose states are
        known."""
        if not self._expect(list(windows)):
            self._model.read_ahead(windows)

    def logits(self, input_ids: Ids) -> Numbers:
        """As :meth:`.subjects.OpenModel.logits`."""
        known = self.behind_blocks
        texts = next((one for one in self._texts if one.has(input_ids)), None)
        if texts is None or known is None:
            return self._model.logits(input_ids)
        states = texts.states.get(input_ids.tobytes())
        if states is not None:
            return known.logits(states)
        logits, states = known.read(input_ids)
        # Whether a model can be cut is seen at its first text.
        if states is not None and (texts.states or np.array_equal(known.logits(states), logits)):
            texts.take(input_ids, states, self._cache)
        else:
            texts.forget()
        return logits

    def _expect(self, texts: list[Ids]) -> bool:
        """Keep the states of ``texts``, each ``[tokens]``; returns whether they are known."""
        if self.behind_blocks is None or not texts:
            return False
        found = _Texts({text[None].tobytes(): len(text) for text in texts})
        found.recall(self._cache, self.behind_blocks.width)
        self._texts.append(found)
        return bool(found.states)

    def greedy(self, prompts: Sequence[str], new_tokens: int, step: Step | None = None) -> list[list[int]]:
        """As :meth:`.subjects.OpenModel.greedy`."""
        ids = prompt_ids(self.tokenizer, prompts)
        limits = new_tokens, self.tokenizer.vocab_size

        def write() -> list[list[int]]:
            return self._model.greedy(prompts, new_tokens, step)

        replies = known_replies(self._cache, ids, len(ids), limits, write)
        self._expect([np.array([*one, *reply], np.int64) for one, reply in zip(ids, replies, strict=False)])
        return replies

    def embeddings(self, texts: Sequence[str]) -> Numbers:
        """As :meth:`.subjects.OpenModel.embeddings`."""
        rows, asked = len(texts), list(texts)
        return known_rows(self._cache, EMBEDDINGS, asked, rows, lambda: self._model.embeddings(texts))

    def label_logits(self, texts: Sequence[str]) -> Numbers:
        """As :meth:`.subjects.OpenModel.label_logits`."""
        count = len(texts)
        if self.label_form.by_token:
            count = sum(map(len, self.tokenizer.encode_batch(texts, max_length=self.max_length)))
        asked = list(texts)
        return known_rows(self._cache, LABELS, asked, count, lambda: self._model.label_logits(texts))

    def describe(self) -> record.Subject:
        """As :meth:`.subjects.OpenModel.describe`."""
        return self._model.describe()


@dataclass
class _Texts:
    """Some texts by the bytes of their ids, with how many tokens each has, and the states ``[1, tokens,
    hidden]`` of those that were read."""

    lengths: dict[bytes, int]
    states: dict[bytes, Numbers] = field(default_factory=dict)

    def has(self, ids: Ids) -> bool:
        """Whether ``ids [1, tokens]`` are one of them."""
        return len(ids) == 1 and ids.tobytes() in self.lengths

    def recall(self, cache: AnswerCache, width: int) -> None:
        """Take the states that were kept, of all texts or none."""
        rows = (cache.read(STATES, self._asked()) or {}).get("states")
        ends = np.cumsum(list(self.lengths.values()))
        if not is_finite(rows) or rows.shape != (ends[-1], width):
            return
        parts = np.split(rows, ends[:-1])
        self.states = {text: part[None] for text, part in zip(self.lengths, parts, strict=True)}
        cache.use(STATES)

    def take(self, ids: Ids, states: Numbers, cache: AnswerCache) -> None:
        """Keep those of one text; with the last of all they go to the ``cache``."""
        if states.shape[-1] * states.itemsize * sum(self.lengths.values()) > LARGEST // 2:
            self.forget()
            return
        self.states[ids.tobytes()] = states
        if len(self.states) == len(self.lengths):
            rows = np.concatenate([self.states[text][0] for text in self.lengths])
            cache.write(STATES, self._asked(), {"states": rows})

    def forget(self) -> None:
        """Keep nothing of them."""
        self.lengths, self.states = {}, {}

    def _asked(self) -> list[str]:
        return [hashlib.sha256(text).hexdigest() for text in self.lengths]


class _KnownAnswers:
    """What an encoder–decoder writes, from the cache; see :class:`.answer_subjects.AnswerModel`."""

    def __init__(self, model: AnswerModel, cache: AnswerCache) -> None:
        self._model, self._cache = model, cache
        self.reads, self.writes = model.reads, model.writes
        self.vocabulary, self.start = model.vocabulary, model.start

    def logits(self, inputs: Ids, written: Ids) -> Numbers:
        return self._model.logits(inputs, written)

    def answers(
        self, inputs: Sequence[list[int]], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        def write() -> list[list[int]]:
            return self._model.answers(inputs, new_tokens, step)

        asked, limits = list(map(list, inputs)), (new_tokens, self.vocabulary)
        return known_replies(self._cache, asked, len(asked), limits, write)
