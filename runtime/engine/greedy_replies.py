"""What a decoder replies to some prompts, greedily, a few of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..bundle.manifest import DecoderSection
from ..text.greedy_loops import NEW_TOKENS, PROMPTS, prompt_ids
from ..text.tokenizer import Tokenizer
from .batch_decoder import BatchDecoder
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
    ids, ends = prompt_ids(tokenizer, prompts), frozenset(section.eos_token_ids)
    if max(map(len, ids)) + new_tokens > section.context_length:
        return []
    replies: list[list[int]] = []
    for start in range(0, len(ids), REPLIES_AT_ONCE):
        some = ids[start : start + REPLIES_AT_ONCE]
        batch = BatchDecoder(session, section)
        found = generate_batch(batch, tokenizer, some, max_new_tokens=new_tokens, eos_ids=ends, step=step)
        replies += [list(reply.token_ids) for reply in found]
    return replies
