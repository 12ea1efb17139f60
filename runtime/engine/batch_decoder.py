"""``BatchDecoder``: several sequences side by side in one cache, each of its own length.

Prompts and whatever extends them go through row by row, each on its part of the cache: no padding is
computed, and prompts, chunks and continuations of unequal length are one case. A step extends all rows by a
token at once, so that the weights are read once for all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError
from ..bundle.graph_contract import logits_dtype
from ..bundle.graph_sections import DecoderSection
from ..session.session import graph_errors_are_typed
from ..text.greedy_loops import NEW_TOKENS, PROMPTS, prompt_ids
from ..text.tokenizer import Tokenizer
from .decoder import CAPACITY_STEP, PREFILL_CHUNK, Ids, Logits, TokenLimits, bind_keep, bind_logits
from .encoder_decoder import EncoderDecoder
from .generate import generate_batch
from .kv_cache import CacheBuffers

REPLIES_AT_ONCE = 5  # each has a cache of its own


class BatchDecoder:
    """:meth:`prefill` some prompts, then :meth:`step` or :meth:`extend` them.

    Attributes:
        lengths: tokens of each row in the cache.
    """

    def __init__(self, session: Any, section: DecoderSection, *, device: str = "cpu") -> None:
        self.session, self.section = session, section
        self.limits = TokenLimits(section.vocab_size, section.context_length)
        self.lengths: list[int] = []
        self._device = device
        self._logits_type = logits_dtype(session, section)
        self._cache: CacheBuffers | None = None
        self._logits: Logits = np.zeros((0, 1, section.vocab_size), self._logits_type)
        self._binding = session.io_binding()

    def prefill(self, prompts: Sequence[Sequence[int]], *, new_tokens: int = 0) -> Logits:
        """Start new sequences with room for ``new_tokens`` after each; logits ``[batch, vocab]`` of the last
        token of each, in an array that the next call overwrites.
        """
        if not len(prompts):
            raise InputError("there are no prompts to run")
        rows = [self.limits.row(prompt) for prompt in prompts]
        self.lengths = [0] * len(rows)
        self._reserve(max(row.shape[1] for row in rows) + new_tokens)
        self._run_rows(rows)
        return self._logits[:, 0]

    def extend(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Append ids to each row, an empty one staying as it is; as :meth:`prefill` otherwise."""
        self._check_count(len(rows))
        arrays = [self.limits.row(row) if len(row) else None for row in rows]
        more = [0 if array is None else array.shape[1] for array in arrays]
        self._reserve(max(length + count for length, count in zip(self.lengths, more, strict=True)))
        self._run_rows(arrays)
        return self._logits[:, 0]

    def step(self, tokens: Sequence[int]) -> Logits:
        """Append one id to every row; as :meth:`prefill` otherwise."""
        self._check_count(len(tokens))
        ids = self.limits.row(tokens).reshape(-1, 1)
        total = max(self.lengths) + 1
        self._reserve(total)
        mask = (np.arange(total) <= np.array(self.lengths)[:, None]).astype(np.int64)
        self._binding.bind_cpu_input("input_ids", ids)
        self._binding.bind_cpu_input("attention_mask", mask)
        with graph_errors_are_typed(f"the graph failed at token {total} of {len(ids)} sequences"):
            self.session.run_with_iobinding(self._binding)
        self.lengths = [length + 1 for length in self.lengths]
        return self._logits[:, 0]

    def _check_count(self, count: int) -> None:
        if count != len(self.lengths):
            raise InputError(f"{count} rows were given for {len(self.lengths)} sequences")

    def _run_rows(self, rows: Sequence[Ids | None]) -> None:
        for number, row in enumerate(rows):
            if row is not None:
                self._run_row(number, row)

    def _run_row(self, number: int, ids: Ids) -> None:
        assert self._cache is not None
        binding = self.session.io_binding()
        self._cache.bind_row(binding, number)
        bind_keep(binding, 1)
        bind_logits(binding, self._logits[number : number + 1])
        for start in range(0, ids.shape[1], PREFILL_CHUNK):
            chunk = np.ascontiguousarray(ids[:, start : start + PREFILL_CHUNK])
            total = self.lengths[number] + chunk.shape[1]
            binding.bind_cpu_input("input_ids", chunk)
            binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
            with graph_errors_are_typed(f"the graph failed at token {total} of sequence {number}"):
                self.session.run_with_iobinding(binding)
            self.lengths[number] = total

    def _reserve(self, tokens: int) -> None:
        self.limits.check_room(tokens)
        batch, cache = len(self.lengths), self._cache
        same = cache is not None and cache.batch == batch
        if cache is not None and same and tokens <= cache.capacity:
            return
        grown = tokens if cache is None or not same else max(tokens, cache.capacity * 2)
        capacity = min(-(-grown // CAPACITY_STEP) * CAPACITY_STEP, self.limits.context_length)
        if cache is not None and any(self.lengths):
            cache.grow(capacity)
        else:
            self._cache = cache = None  # freed before its successor is made
            cache = CacheBuffers(self.section, batch=batch, capacity=capacity, device=self._device)
            self._logits = np.zeros((batch, 1, self.section.vocab_size), self._logits_type)
        self._cache = cache
        cache.bind(self._binding)
        bind_keep(self._binding, 1)
        bind_logits(self._binding, self._logits)


def unpadded(input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> list[list[int]]:
    """The tokens of each row of a batch ``[batch, seq]`` that was padded on the left or on the right."""
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise InputError(
            f"ids of shape {list(input_ids.shape)} with a mask of shape {list(attention_mask.shape)}",
            fix="give both as [batch, seq]",
        )
    rows = []
    for number, (ids, mask) in enumerate(zip(input_ids, attention_mask != 0, strict=True)):
        places = np.flatnonzero(mask)
        if len(places) and places[-1] - places[0] + 1 != len(places):
            raise InputError(f"the mask of row {number} has holes: only padding at the ends can be left out")
        rows.append(ids[mask].tolist())
    return rows


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
