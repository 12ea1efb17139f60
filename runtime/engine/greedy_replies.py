"""What a decoder, or an encoder–decoder, replies to some prompts, greedily, a few of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..bundle.graph_sections import DecoderSection
from ..text.greedy_loops import NEW_TOKENS, PROMPTS, prompt_ids
from ..text.tokenizer import Tokenizer
from .batch_decoder import BatchDecoder
from .encoder_decoder import EncoderDecoder
from .generate import generate_batch

REPLIES_AT_ONCE = 5  # each has a cache of its own


def greedy_replies(
    session: Any,
    section: DecoderSection,
    tokenizer: Tokenizer,
    *,
    prompts: Sequence[str] = PROMPTS,
    new_tokens: int = NEW_TOKENS,
    step: Callable[[], None] | None = None,
) -> list[list[int]]:
    """The ids of each reply; empty where the prompts with their replies do not fit the model. ``step`` is
    called after each token of those that are written side by side.
    """
    ids = prompt_ids(tokenizer, prompts)
    if max(map(len, ids)) + new_tokens > section.context_length:
        return []
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "eos_ids": frozenset(section.eos_token_ids)}
    return [
        list(reply.token_ids)
        for some in _groups(ids)
        for reply in generate_batch(BatchDecoder(session, section), tokenizer, some, step=step, **options)
    ]


def greedy_answers(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    inputs: Sequence[list[int]],
    *,
    new_tokens: int = NEW_TOKENS,
    step: Callable[[], None] | None = None,
) -> list[list[int]]:
    """What an encoder–decoder answers to each of ``inputs``, token ids."""
    ends = frozenset(model.section.eos_token_ids)
    options: dict[str, Any] = {"max_new_tokens": new_tokens, "eos_ids": ends}
    return [
        list(reply.token_ids)
        for some in _groups(inputs)
        for reply in generate_batch(model, tokenizer, some, step=step, **options)
    ]


def _groups(ids: Sequence[list[int]]) -> Iterator[Sequence[list[int]]]:
    return (ids[start : start + REPLIES_AT_ONCE] for start in range(0, len(ids), REPLIES_AT_ONCE))
