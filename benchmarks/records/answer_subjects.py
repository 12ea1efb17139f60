"""An encoder–decoder that reads text, under measurement: what it writes of an input, given or by itself.

A decoder cut in front of its head: the states that its blocks end with, and the logits of states.

States are as wide as the model and logits as its vocabulary, of SmolLM2 85 times as wide: an original is
remembered by the former (:mod:`..quality.known_original`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.bundle.bundle import Bundle
from ...runtime.engine.batch_decoder import greedy_answers
from ...runtime.engine.encoder_decoder import EncoderDecoder
from ...runtime.text.greedy_loops import prompt_ids
from ...runtime.text.tokenizer import Tokenizer

Ids = NDArray[np.int64]
Step = Callable[[], None]
Numbers = NDArray[np.float32]


class AnswerModel(Protocol):
    """A model that reads an input, and writes an answer.

    Attributes:
        reads, writes: tokens of an input, and of an answer behind its start, at most.
        vocabulary: ids are below it.
        start: the token that answers begin with.
    """

    reads: int
    writes: int
    vocabulary: int
    start: int

    def logits(self, inputs: Ids, written: Ids) -> NDArray[np.float32]:
        """``[batch, tokens, vocab]`` after each of the tokens ``written [batch, tokens]``, the start the
        first of them, of what the encoder read, ``inputs [batch, tokens]`` without padding."""
        ...

    def answers(
        self, inputs: Sequence[list[int]], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """The ids that it writes of each of ``inputs``, of whatever length, the likeliest token each time,
        until it ends; what its settings force or forbid is. ``step`` is called after each token of all."""
        ...


class BundleAnswers:
    """An opened bundle; see :class:`AnswerModel`."""

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer, threads: int) -> None:
        self._model, self._tokenizer = EncoderDecoder.open(bundle, threads), tokenizer
        section = self._model.section
        self.reads, self.writes = section.max_length, section.context_length - 1
        self.vocabulary, self.start = section.vocab_size, section.start_token_id

    def logits(self, inputs: Ids, written: Ids) -> NDArray[np.float32]:
        """As :meth:`AnswerModel.logits`."""
        ids = np.ascontiguousarray(inputs)
        self._model.read(ids, np.ones_like(ids))
        return self._model.write(written)

    def answers(
        self, inputs: Sequence[list[int]], new_tokens: int, step: Step | None = None
    ) -> list[list[int]]:
        """As :meth:`AnswerModel.answers`."""
        return greedy_answers(self._model, self._tokenizer, inputs, new_tokens=new_tokens, step=step)


def copying_logits(model: AnswerModel, ids: Ids) -> NDArray[np.float32]:
    """Logits ``[batch, length, vocab]`` after each of ``ids [batch, length]``, of a model that has read them
    and writes them again."""
    start = np.full((len(ids), 1), model.start, np.int64)
    found: NDArray[np.float32] = model.logits(ids, np.concatenate([start, ids], 1))[:, 1:]
    return found


def answers_to(
    model: AnswerModel, tokenizer: Tokenizer, prompts: Sequence[str], new_tokens: int, step: Step | None
) -> list[list[int]]:
    """What ``model`` writes of each of ``prompts``, as ids; empty where they do not fit."""
    ids = prompt_ids(tokenizer, prompts)
    if max(map(len, ids)) > model.reads or new_tokens > model.writes:
        return []
    return model.answers(ids, new_tokens, step)


class BehindBlocks(Protocol):
    """A decoder that can be cut in front of its head, where its states are ``width`` numbers."""

    @property
    def width(self) -> int: ...

    def read(self, input_ids: NDArray[np.int64]) -> tuple[Numbers, Numbers | None]:
        """Logits ``[batch, length, vocab]`` of ``input_ids [batch, length]``, and the states ``[batch,
        length, hidden]`` that they are made of; None where the model does not give them."""
        ...

    def logits(self, states: Numbers) -> Numbers:
        """The logits of such states."""
        ...
