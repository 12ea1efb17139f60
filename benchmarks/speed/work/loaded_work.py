"""A loaded model with one unit of work: a generation, or a round of embedding. It is timed piece by piece, or
one phase of it is repeated alone.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from ....runtime.engine.decoder import PREFILL_CHUNK, Decoder
from ....runtime.images.prepared import Pixels
from ....runtime.text.tokenizer import Tokenizer

Sample = dict[str, list[int]]

BRIEF_TOKENS = 8


class Work(Protocol):
    """A loaded model with one unit of work.

    Attributes:
        phases: by the name of each phase, the series of a sample that has its times.
    """

    session: Any
    phases: dict[str, str]

    @property
    def graph_runs(self) -> tuple[int, int]:
        """How often the graphs run in a unit: in the first phase, in all."""

    @property
    def sessions(self) -> list[tuple[Any, int]]:
        """Each graph with its runs in a unit, in the order in which they come."""

    def __call__(self) -> Sample: ...

    def brief(self) -> None:
        """A shorter piece of the same work, to warm up with."""

    def repeat(self, phase: str) -> int:
        """One phase alone, once more; the tokens or sentences that it got through."""


class GenerationWork:
    """A decoder with its prompt."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, ids: list[int], new_tokens: int) -> None:
        self.session = decoder.session
        self.tokenizer = tokenizer  # not in the timed work, but in the load and the memory of whoever does it
        self._decoder, self._ids, self._new_tokens = decoder, ids, new_tokens
        self.phases = {"prefill": "prefill", "decode": "tokens"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`Work`."""
        prefill = -(-len(self._ids) // PREFILL_CHUNK)
        return prefill, prefill + self._new_tokens - 1

    @property
    def sessions(self) -> list[tuple[Any, int]]:
        """See :class:`Work`."""
        return [(self.session, self.graph_runs[1])]

    def brief(self) -> None:
        """The whole prompt and a few tokens after it."""
        self._generate(min(self._new_tokens, BRIEF_TOKENS))

    def repeat(self, phase: str) -> int:
        """``prefill`` of the whole prompt, or ``decode`` of what follows it from the same cache."""
        if phase == "prefill" or self._decoder.length < len(self._ids):
            self._decoder.prefill(self._ids, new_tokens=self._new_tokens)
        if phase == "prefill":
            return len(self._ids)
        self._decoder.rewind(len(self._ids))
        token = self._ids[-1]
        for _ in range(self._new_tokens - 1):
            token = int(self._decoder.step(token).argmax())
        return self._new_tokens - 1

    def __call__(self) -> Sample:
        """Nanoseconds: ``prefill``, ``first`` (until the first token is chosen), ``tokens`` (each one
        after).
        """
        return self._generate(self._new_tokens)

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


class BatchWork:
    """An encoder with its batch of sentences or images: ``answers`` takes some of ``batch``."""

    def __init__(
        self, session: Any, answers: Callable[[Any], object], batch: Sequence[Any] | Pixels, singles: int
    ) -> None:
        self.session = session
        self._answers, self._batch, self._singles = answers, batch, singles
        self.phases = {"batch": "batch", "single": "single"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`Work`."""
        return 1, 1 + self._singles

    @property
    def sessions(self) -> list[tuple[Any, int]]:
        """See :class:`Work`."""
        return [(self.session, self.graph_runs[1])]

    def brief(self) -> None:
        """The same: it is short."""
        self()

    def repeat(self, phase: str) -> int:
        """``batch``, the only phase that is repeated alone."""
        self._answers(self._batch)
        return len(self._batch)

    def __call__(self) -> Sample:
        """Nanoseconds: ``batch`` for the whole batch, ``single`` for each of some alone."""
        whole = timed(partial(self._answers, self._batch))
        places = [index % len(self._batch) for index in range(self._singles)]
        alone = [self._batch[place : place + 1] for place in places]
        return {"batch": [whole], "single": [timed(partial(self._answers, one)) for one in alone]}


def timed(work: Callable[[], object]) -> int:
    """Nanoseconds that ``work`` takes."""
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start
