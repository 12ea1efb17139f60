"""The generation loop: prefill, then choose and step, yielding text as soon as it is certain.

Times cover the model and the choice of tokens only, not what the caller does between two pieces.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InputError
from .decoder import Decoder, Logits
from .sampling import Sampler, Sampling
from .text_stream import Decodes, IncrementalDecoder, StopStrings

FinishReason = Literal["eos", "stop", "length"]


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


def stream(
    decoder: Decoder,
    tokenizer: Decodes,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Sequence[str] = (),
    eos_ids: Collection[int] = (),
) -> Generator[str, None, Generation]:
    """Yield pieces of text; the generator's return value is the :class:`Generation`.

    Raises:
        InputError: an empty prompt, no new tokens asked for, or more tokens than the context holds.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens is {max_new_tokens}, it must be at least 1")
    start = time.perf_counter()
    # The last token is chosen but never run, so it needs no room.
    logits = decoder.prefill(prompt_ids, new_tokens=max_new_tokens - 1)
    sampler = Sampler(sampling or Sampling(), prompt_ids)
    tokens = [sampler.choose(logits)]
    ttft = time.perf_counter() - start
    decode = 0.0
    pieces: list[str] = []
    words, stops = IncrementalDecoder(tokenizer), StopStrings(stop)
    while True:
        finished = _finished(tokens, max_new_tokens, eos_ids)
        piece = "" if finished == "eos" else stops.feed(words.feed(tokens[-1]))
        if stops.stopped:
            finished = "stop"
        elif finished:
            piece += stops.flush()
        if piece:
            pieces.append(piece)
            yield piece
        if finished:
            return Generation("".join(pieces), tuple(tokens), len(prompt_ids), finished, ttft, decode)
        logits, spent = _timed_step(decoder, tokens[-1])
        began = time.perf_counter()
        tokens.append(sampler.choose(logits))
        decode += spent + time.perf_counter() - began


def _timed_step(decoder: Decoder, token: int) -> tuple[Logits, float]:
    began = time.perf_counter()
    logits = decoder.step(token)
    return logits, time.perf_counter() - began


def _finished(tokens: list[int], limit: int, eos_ids: Collection[int]) -> FinishReason | None:
    if tokens[-1] in eos_ids:
        return "eos"
    return "length" if len(tokens) >= limit else None
