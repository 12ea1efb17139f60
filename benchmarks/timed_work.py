"""The units of work that are timed: one generation, or one round of embedding. Forced lengths, greedy,
batch as asked.

Token ids are drawn at random from a seed, so that both arms see the same prompt and no tokenizer is
inside the time. Nothing stops early: an end-of-text token is fed on like any other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..runtime.bundle import Bundle
from ..runtime.decoder import PREFILL_CHUNK, Decoder
from ..runtime.encoder import Encoder
from ..runtime.tokenizer import Tokenizer

Sample = dict[str, list[int]]

_BRIEF_TOKENS = 8


def _random_ids(shape: tuple[int, ...], vocab_size: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, vocab_size, size=shape, dtype=np.int64)


class Work(Protocol):
    """A loaded model with one unit of work.

    Attributes:
        filler: the session of a prefill graph that had a part in the last unit, or None.
        fills: how often that graph ran.
        phases: by the name of each phase, the series of a sample that has its times.
    """

    session: Any
    filler: Any
    fills: int
    phases: dict[str, str]

    @property
    def graph_runs(self) -> tuple[int, int]:
        """How often the model's own graph ran in the last unit: in the first phase, in all."""

    def __call__(self) -> Sample: ...

    def brief(self) -> None:
        """A shorter piece of the same work, to warm up with."""


@dataclass(frozen=True)
class Generation:
    """Generate ``new_tokens`` after a prompt of ``prompt_tokens`` at batch 1."""

    prompt_tokens: int = 128
    new_tokens: int = 128
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: an encoder, or a context that is too short."""
        if self.prompt_tokens < 1 or self.new_tokens < 2:
            raise InputError(
                f"a prompt of {self.prompt_tokens} and {self.new_tokens} new tokens cannot be timed",
                fix="use a prompt of at least 1 token and at least 2 new tokens",
            )
        total, context = self.prompt_tokens + self.new_tokens, bundle.decoder.context_length
        if total > context:
            raise InputError(
                f"{total} tokens do not fit the context of {context} of {bundle.path}",
                fix="lower --prompt-tokens or --new-tokens",
            )

    def open(
        self,
        bundle: Bundle,
        *,
        threads: int,
        provider: str,
        profile: Path | None = None,
        cache: bool = False,
    ) -> Work:
        """Load the bundle, ready to work."""
        tokenizer = Tokenizer.open(bundle.path)
        decoder = Decoder.open(bundle, threads, provider=provider, profile=profile, cache=cache)
        ids = _random_ids((self.prompt_tokens,), decoder.vocab_size, self.seed).tolist()
        return _Generate(decoder, tokenizer, ids, self.new_tokens)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        ids = _random_ids((self.prompt_tokens,), bundle.decoder.vocab_size, self.seed)
        return {
            "kind": "generate",
            "scenario": "single",
            "batch": 1,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "sampling": "greedy",
            "kv_dtype": bundle.decoder.kv_dtype,
            "prompts_sha256": hashlib.sha256(ids.tobytes()).hexdigest(),
            "includes": {"tokenize": False, "sample": True, "load": False},
        }


class _Generate:
    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, ids: list[int], new_tokens: int) -> None:
        self.session = decoder.session
        self.tokenizer = tokenizer  # not in the timed work, but in the load and the memory of whoever does it
        self._decoder, self._ids, self._new_tokens = decoder, ids, new_tokens
        self.filler, self.fills = None, 0
        self.phases = {"prefill": "prefill", "decode": "tokens"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`Work`. The last token of a prompt goes through the model's own graph."""
        prefill = 1 if self.fills else -(-len(self._ids) // PREFILL_CHUNK)
        return prefill, prefill + self._new_tokens - 1

    def brief(self) -> None:
        """The whole prompt and a few tokens after it."""
        self._generate(min(self._new_tokens, _BRIEF_TOKENS))

    def __call__(self) -> Sample:
        """Nanoseconds: ``prefill``, ``first`` (until the first token is chosen), ``tokens`` (each one
        after).
        """
        graph = self._decoder.prefill_graph
        before = graph.runs if graph else 0
        sample = self._generate(self._new_tokens)
        self.fills = graph.runs - before if graph else 0
        self.filler = graph.session() if graph and self.fills else None
        return sample

    def _generate(self, new_tokens: int) -> Sample:
        clock, decoder = time.perf_counter_ns, self._decoder
        start = clock()
        logits = decoder.prefill(self._ids, new_tokens=self._new_tokens)
        prefilled = clock()
        token = int(logits.argmax())
        last = first = clock()
        tokens: list[int] = []
        for _ in range(new_tokens - 1):
            token = int(decoder.step(token).argmax())
            now = clock()
            tokens.append(now - last)
            last = now
        return {"prefill": [prefilled - start], "first": [first - start], "tokens": tokens}


@dataclass(frozen=True)
class Embedding:
    """Embed sentences of ``length`` tokens: one batch of ``batch``, then ``singles`` alone."""

    length: int = 128
    batch: int = 32
    singles: int = 8
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: a decoder, or a length beyond its limit."""
        if min(self.length, self.batch, self.singles) < 1:
            raise InputError("length, batch and singles must be at least 1")
        if self.length > bundle.encoder.max_length:
            raise InputError(
                f"sentences of {self.length} tokens do not fit {bundle.path}",
                why=f"its limit is {bundle.encoder.max_length} tokens",
                fix="lower --prompt-tokens",
            )

    def open(
        self,
        bundle: Bundle,
        *,
        threads: int,
        provider: str,
        profile: Path | None = None,
        cache: bool = False,
    ) -> Work:
        """Load the bundle, ready to work."""
        encoder = Encoder.open(bundle, threads, provider=provider, profile=profile, cache=cache)
        return _Embed(encoder, self._ids(encoder.tokenizer.vocab_size), self.singles)

    def _ids(self, vocab_size: int) -> npt.NDArray[np.int64]:
        return _random_ids((self.batch, self.length), vocab_size, self.seed)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        return {
            "kind": "embed",
            "scenario": "offline and single",
            "batch": self.batch,
            "length": self.length,
            "seed": self.seed,
            "includes": {"tokenize": False, "pool": True, "load": False},
        }


class _Embed:
    def __init__(self, encoder: Encoder, ids: npt.NDArray[np.int64], singles: int) -> None:
        self.session = encoder.session
        self._encoder, self._rows, self._singles = encoder, ids.tolist(), singles
        self.filler, self.fills = None, 0
        self.phases = {"batch": "batch", "single": "single"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`Work`."""
        return 1, 1 + self._singles

    def brief(self) -> None:
        """The same: it is short."""
        self()

    def __call__(self) -> Sample:
        """Nanoseconds: ``batch`` for the whole batch, ``single`` for each sentence embedded alone."""
        whole = _timed(partial(self._encoder.embed_ids, self._rows, len(self._rows)))
        alone = [self._rows[index % len(self._rows)] for index in range(self._singles)]
        return {
            "batch": [whole],
            "single": [_timed(partial(self._encoder.embed_ids, [row], 1)) for row in alone],
        }


def _timed(work: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start


Workload = Generation | Embedding


def to_json(workload: Workload) -> dict[str, Any]:
    """The workload as a message for a worker."""
    return {"kind": "generate" if isinstance(workload, Generation) else "embed", **asdict(workload)}


def from_json(message: dict[str, Any]) -> Workload:
    """The inverse of :func:`to_json`."""
    fields = {key: value for key, value in message.items() if key != "kind"}
    return Generation(**fields) if message["kind"] == "generate" else Embedding(**fields)
