"""``Decoder``: drives a decoder graph token by token over bound buffers.

One graph serves prefill and decode. Everything that does not change from step to step stays bound; a step
binds the attention mask's new length, writes one token id and runs.

What a decoder takes: ids of its vocabulary, and no more of them than its context holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InputError, OutOfResource
from ..bundle.bundle import Bundle
from ..bundle.graph_contract import logits_dtype
from ..bundle.graph_sections import DecoderSection
from ..session.session import device_of, graph_errors_are_typed, owned_value
from .kv_cache import CacheBuffers
from .load import load_graph

# Long prompts go through in chunks, which bound the memory of activations. The products reach their speed at
# this length; longer chunks take more memory and no less time (benchmarks/lab/results/kernels.md).
PREFILL_CHUNK = 256
# Capacity grows in steps of this many tokens at least, so that a chat does not reallocate at each turn; a
# multiple of 16, the block of our own attention.
CAPACITY_STEP = 256
Logits = npt.NDArray[np.floating]
Ids = npt.NDArray[np.int64]


class Decoder:
    """One sequence at a time: :meth:`prefill`, then :meth:`step`; :meth:`logits` is for whole batches.

    Attributes:
        length: tokens in the cache.
        device: where it lies.
        context_length, vocab_size: limits from the manifest.
    """

    def __init__(self, session: Any, section: DecoderSection, *, device: str = "cpu") -> None:
        self.session = session
        self.section = section
        self.context_length, self.vocab_size = section.context_length, section.vocab_size
        self.limits = TokenLimits(section.vocab_size, section.context_length)
        self.length = 0
        self.device = device
        self._logits_type = logits_dtype(session, section)
        self._known: tuple[int, dict[str, npt.NDArray[Any]]] = (0, {})  # states after so many tokens
        self._batch: CacheBuffers | None = None
        self._cache: CacheBuffers | None = None
        self._mask = np.ones((1, 0), np.int64)
        self._ids = np.zeros(0, np.int64)
        self._token = np.zeros((1, 1), np.int64)
        self._last = np.zeros((1, 1, self.vocab_size), self._logits_type)
        self._row: Logits = self._last[0, 0]
        self._chunk_binding = session.io_binding()
        self._step_binding = session.io_binding()

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        threads: int | None = None,
        *,
        provider: str = "cpu",
        profile: Path | None = None,
    ) -> Decoder:
        """Load the graph of ``bundle``; the arguments are those of :func:`.load.load_graph`."""
        section = bundle.decoder
        session = load_graph(bundle, threads=threads, provider=provider, profile=profile)
        return cls(session, section, device=device_of(provider))

    def prefill(self, ids: Sequence[int], *, new_tokens: int = 0) -> Logits:
        """Start a new sequence with room for ``new_tokens`` after ``ids``; logits ``[vocab]`` of the last.

        The returned array is overwritten by the next call.
        """
        self.length = 0
        self._reserve(len(ids) + new_tokens)
        return self.extend(ids)

    def resume(self, ids: Sequence[int], *, new_tokens: int = 0) -> Logits:
        """As :meth:`prefill`, where what ``ids`` and the sequence begin with alike stays in the cache.

        A conversation that goes on so costs its new tokens only.
        """
        wanted = self.limits.row(ids)[0]
        self.limits.check_room(len(wanted) + new_tokens)
        known = self._ids[: min(self.length, len(wanted) - 1)]  # the last is run: its logits are asked for
        differs = np.flatnonzero(known != wanted[: len(known)])
        self._take_back(int(differs[0]) if len(differs) else len(known))
        self._reserve(len(wanted) + new_tokens)
        return self.extend(wanted[self.length :].tolist())

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens of the sequence; what comes next is appended to them.

        Of states that is where :meth:`extend` last ended; tokens beyond the states that are known are run
        again.
        """
        length = min(length, self.length)
        ids = self._ids[:length].tolist()
        self._take_back(length)
        if self.length < length:
            self.extend(ids[self.length :])

    def _take_back(self, length: int) -> None:
        """Go back to the ``length`` first tokens of the sequence, or where the states of these are not known
        to fewer of them.
        """
        if not self.section.states or length == self.length:
            self.length = length
            return
        before, states = self._known
        self.length = before if before <= length else 0
        if self.length and self._cache is not None:
            self._cache.restore(states)

    def extend(self, ids: Sequence[int]) -> Logits:
        """Append several ``ids`` to the sequence, in chunks; as :meth:`prefill` otherwise."""
        array = self.limits.row(ids)
        self._reserve(self.length + array.shape[1])
        for start in range(0, array.shape[1], PREFILL_CHUNK):
            chunk = np.ascontiguousarray(array[:, start : start + PREFILL_CHUNK])
            self._chunk_binding.bind_cpu_input("input_ids", chunk)
            self._run(self._chunk_binding, chunk)
        if self.section.states and self._cache is not None:
            self._known = self.length, self._cache.states()
        return self._row

    def step(self, token: int) -> Logits:
        """Append one id; logits ``[vocab]`` after it, in an array that the next call overwrites."""
        self.limits.check_range(np.array([token]))
        self._reserve(self.length + 1)
        self._token[0, 0] = token
        self._run(self._step_binding, self._token)
        return self._row

    def logits(self, input_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Logits ``[batch, seq, vocab]`` at every position of ``input_ids [batch, seq]``.

        The sequence of :meth:`prefill` is left alone.

        Rows of unequal length are padded on the right with any id: attention is causal, so that what comes
        before the padding does not depend on it.
        """
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise InputError(f"logits needs ids of shape [batch, seq], not {list(input_ids.shape)}")
        ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        self.limits.check_range(ids)
        batch, length = ids.shape
        self.limits.check_room(length)
        if self._batch is None or (self._batch.batch, self._batch.capacity) != (batch, length):
            self._batch = CacheBuffers(self.section, batch=batch, capacity=length, device=self.device)
        result = _allocated((batch, length, self.vocab_size), self._logits_type)
        binding = self.session.io_binding()
        self._batch.bind(binding)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", np.ones((batch, length), np.int64))
        bind_keep(binding, 0)
        bind_logits(binding, result)
        with graph_errors_are_typed("the graph failed on a batch"):
            self.session.run_with_iobinding(binding)
        return result.astype(np.float32, copy=False)

    def _run(self, binding: Any, ids: Ids) -> None:
        total = self.length + ids.shape[1]
        self._ids[self.length : total] = ids[0]
        binding.bind_cpu_input("attention_mask", self._mask[:, :total])
        with graph_errors_are_typed(f"the graph failed at token {total}"):
            self.session.run_with_iobinding(binding)
        self.length = total

    def _reserve(self, tokens: int) -> None:
        if self._cache is not None and tokens <= self._cache.capacity:
            return
        self.limits.check_room(tokens)
        grown = tokens if self._cache is None else max(tokens, self._cache.capacity * 2)
        capacity = min(-(-grown // CAPACITY_STEP) * CAPACITY_STEP, self.context_length)
        if self._cache is None or self.length == 0:
            self._cache = None  # freed before its successor is made
            self._cache = CacheBuffers(self.section, batch=1, capacity=capacity, device=self.device)
        else:
            self._cache.grow(capacity)
        self._mask = np.ones((1, capacity), np.int64)
        self._ids = np.concatenate([self._ids[: self.length], np.zeros(capacity - self.length, np.int64)])
        for binding in (self._chunk_binding, self._step_binding):
            self._cache.bind(binding)
            bind_keep(binding, 1)
            bind_logits(binding, self._last)
        self._step_binding.bind_cpu_input("input_ids", self._token)


def _allocated(shape: tuple[int, ...], dtype: type[np.floating]) -> Logits:
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise OutOfResource(
            f"no memory for logits of shape {list(shape)}", why=str(error), fix="use smaller batches"
        ) from None


def bind_keep(binding: Any, positions: int) -> None:
    """Ask for the logits of the last ``positions``, or of all when 0."""
    # An OrtValue, since an array can only be bound to an input without a default.
    binding.bind_ortvalue_input("logits_to_keep", owned_value(np.array([positions], np.int64)))


def bind_logits(binding: Any, array: Logits) -> None:
    """Have the graph write its logits into ``array [batch, positions, vocab]``."""
    binding.bind_output("logits", "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


@dataclass(frozen=True)
class TokenLimits:
    """The limits of one model."""

    vocab_size: int
    context_length: int

    def row(self, ids: Sequence[int]) -> Ids:
        """``ids`` as an array ``[1, n]``."""
        array = np.asarray(ids, dtype=np.int64).reshape(1, -1)
        if array.shape[1] == 0:
            raise InputError("there are no tokens to run", fix="give a prompt that is not empty")
        self.check_range(array)
        return array

    def check_range(self, ids: Ids) -> None:
        """Raise :class:`InputError` when one of ``ids`` (at least one) is outside the vocabulary."""
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= self.vocab_size:
            raise InputError(
                f"token id {lowest if lowest < 0 else highest} is outside the model's vocabulary of "
                f"{self.vocab_size}",
                why="the tokenizer belongs to another model, or the ids were not made with it",
            )

    def check_room(self, tokens: int) -> None:
        """Raise :class:`InputError` when a sequence of ``tokens`` exceeds the context."""
        if tokens > self.context_length:
            raise InputError(
                f"{tokens} tokens do not fit the model's context of {self.context_length}",
                fix="shorten the prompt or ask for fewer new tokens",
            )
