"""The generation loop: prefill, then choose and step, yielding text as soon as it is certain.

Times cover the model and the choice of tokens only, not what the caller does between two pieces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Literal, Protocol

from ...errors import InputError
from ..text.text_stream import Decodes, IncrementalDecoder, StopStrings
from .decoder import Decoder, Logits
from .sampling import Sampler, Sampling

FinishReason = Literal["eos", "stop", "length"]
MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class Generation:
    """What was generated. ``text`` ends before the stop string; ``token_ids`` are all tokens, with eos."""

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: FinishReason
    ttft_s: float = field(metadata={"unit": "seconds until the first token was chosen"})
    decode_s: float = field(metadata={"unit": "seconds of all later tokens"})

    @property
    def tokens_per_second(self) -> float | None:
        """Decode speed without the first token; None for a single token."""
        steps = len(self.token_ids) - 1
        return steps / self.decode_s if steps > 0 and self.decode_s > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": len(self.token_ids),
            "finish_reason": self.finish_reason,
            "ttft_ms": 1000 * self.ttft_s,
            "tokens_per_second": self.tokens_per_second,
        }


class TextStream:
    """Iterates over pieces of text; afterwards :attr:`result` has the counts and times. Each piece is made in
    its ``turn``, which threads that share a model wait for.
    """

    def __init__(self, pieces: Iterator[str], turn: AbstractContextManager[Any]) -> None:
        self._pieces, self._turn = pieces, turn
        self._result: Generation | None = None
        self._ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._turn:
            if self._ended and self._result is None:
                raise InputError(
                    "this stream was ended by the next one of its model, which has one sequence at a time",
                    fix="read a stream to its end before the next one, or open the bundle for each",
                )
            try:
                return next(self._pieces)
            except StopIteration as end:
                if self._result is None:
                    self._result = end.value
                raise StopIteration from None

    def end(self) -> None:
        """Yield no more, where it has not come to its end: another sequence takes its place in the model."""
        self._ended = True

    @property
    def result(self) -> Generation:
        """What was generated; runs what is left of the stream first."""
        for _ in self:
            pass
        if self._result is None:
            raise InputError("this stream was stopped by an error and has no result")
        return self._result


class Streaming:
    """A model of one sequence at a time: what it begins ends the stream before. Threads may share it: whole
    answers take turns.
    """

    def __init__(self) -> None:
        self._newest: TextStream | None = None
        self._turn = RLock()

    def _begun(self, pieces: Iterator[str]) -> TextStream:
        """The stream of ``pieces``, in the place of the one before."""
        with self._turn:
            self._end_stream()
            self._newest = TextStream(pieces, self._turn)
            return self._newest

    def _end_stream(self) -> None:
        if self._newest is not None:
            self._newest.end()


class _Reply:
    """One continuation as it grows: its tokens, its text so far, and what ended it."""

    def __init__(
        self,
        tokenizer: Decodes,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop: Sequence[str],
        eos_ids: Collection[int],
        seen: Sequence[int] | None,
    ) -> None:
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}, it must be at least 1")
        self.tokens: list[int] = []
        self.finished: FinishReason | None = None
        self._prompt_tokens, self._limit, self._eos_ids = len(prompt_ids), max_new_tokens, eos_ids
        self._sampler = Sampler(sampling or Sampling(), prompt_ids if seen is None else seen)
        self._words = IncrementalDecoder(tokenizer)
        self._stops = StopStrings([stop] if isinstance(stop, str) else stop)  # a text is a sequence as well
        self._pieces: list[str] = []

    def choose(self, logits: Logits) -> None:
        """Take the next token from ``logits [vocab]``."""
        self.tokens.append(self._sampler.choose(logits))

    def text(self) -> str:
        """What the newest token makes certain of the text, and whether it ends it."""
        token = self.tokens[-1]
        if token in self._eos_ids:
            self.finished = "eos"
        elif len(self.tokens) >= self._limit:
            self.finished = "length"
        piece = "" if self.finished == "eos" else self._stops.feed(self._words.feed(token))
        if self._stops.stopped:
            self.finished = "stop"
        elif self.finished:
            piece += self._stops.flush()
        self._pieces.append(piece)
        return piece

    def generation(self, ttft_s: float, decode_s: float) -> Generation:
        """The finished reply."""
        assert self.finished is not None
        text, tokens = "".join(self._pieces), tuple(self.tokens)
        return Generation(text, tokens, self._prompt_tokens, self.finished, ttft_s, decode_s)


class Steps(Protocol):
    """What begins an answer and goes on with it: logits ``[vocab]`` each time."""

    def prefill(self, ids: Sequence[int], *, new_tokens: int = 0) -> Logits: ...

    def step(self, token: int) -> Logits: ...


class BatchSteps(Protocol):
    """The same of several at once: logits ``[batch, vocab]``."""

    def prefill(self, prompts: Sequence[Sequence[int]], *, new_tokens: int = 0) -> Logits: ...

    def step(self, tokens: Sequence[int]) -> Logits: ...


def stream(
    decoder: Steps,
    tokenizer: Decodes,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    eos_ids: Collection[int] = (),
    resume: bool = False,
    seen: Sequence[int] | None = None,
) -> Generator[str, None, Generation]:
    """Yield pieces of text; the generator's return value is the :class:`Generation`.

    ``resume`` keeps what the prompt and the sequence of a :class:`Decoder` begin with alike; ``seen`` are the
    tokens that would be repeated, where they are not those of the prompt.
    """
    reply = _Reply(tokenizer, prompt_ids, max_new_tokens, sampling, stop, eos_ids, seen)
    start = time.perf_counter()
    begin = decoder.resume if resume and isinstance(decoder, Decoder) else decoder.prefill
    # The last token is chosen but never run, so it needs no room.
    reply.choose(begin(prompt_ids, new_tokens=max_new_tokens - 1))
    ttft = time.perf_counter() - start
    decode = 0.0
    while True:
        piece = reply.text()
        if piece:
            yield piece
        if reply.finished:
            return reply.generation(ttft, decode)
        began = time.perf_counter()
        reply.choose(decoder.step(reply.tokens[-1]))
        decode += time.perf_counter() - began


def generate_batch(
    decoder: BatchSteps,
    tokenizer: Decodes,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    eos_ids: Collection[int] = (),
    step: Callable[[], None] | None = None,
    seen: Sequence[int] | None = None,
) -> list[Generation]:
    """A reply to each of ``prompts``, side by side; each draws its tokens as if it were alone. ``step`` is
    called after each token of all; ``seen`` is as for :func:`stream`.

    The times are those of the whole batch. ONNX Runtime may step several rows with another kernel than one,
    which rounds otherwise: a reply depends on whether there are other prompts, and not on what they are.
    """
    replies = [_Reply(tokenizer, ids, max_new_tokens, sampling, stop, eos_ids, seen) for ids in prompts]
    start = time.perf_counter()
    logits = decoder.prefill(prompts, new_tokens=max_new_tokens - 1)
    for reply, row in zip(replies, logits, strict=True):
        reply.choose(row)
        reply.text()
    ttft = time.perf_counter() - start
    while not all(reply.finished for reply in replies):
        # A finished row goes on with its last token, and nobody reads what comes of it.
        logits = decoder.step([reply.tokens[-1] for reply in replies])
        if step is not None:
            step()
        for reply, row in zip(replies, logits, strict=True):
            if not reply.finished:
                reply.choose(row)
                reply.text()
    decode = time.perf_counter() - start - ttft
    return [reply.generation(ttft, decode) for reply in replies]
