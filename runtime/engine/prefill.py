"""The prefill graph of a bundle: it fills a decoder's cache with many tokens at once and computes no logits.

``MatMulNBits`` is made for one token. Where many come at once, products of 8-bit integers are several times
as fast: activations are rounded per token, weights to int8 with one scale for each output, made on the device
of the codes that the bundle has (:mod:`..prepack.int8_weights`). That is another arithmetic with other
answers, so that nothing but the bundle, the provider and the number of new tokens decides which one runs:
where the prepacked cache does not hold the weights, which take a byte each, they are made in memory. The last
token of a prompt always goes through the model's own graph, which makes the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..bundle.bundle import Bundle
from ..prepack import prepacked
from ..prepack.int8_weights import int8_weights_of
from ..session.session import PREFILL, graph_errors_are_typed, open_session
from .load import open_prepacked
from .token_limits import Ids

# What the tokens of a prompt went through: int8 is the prefill graph, none the model's own.
Arithmetic = Literal["int8", "none"]

# A process that stays gains from half as many on. One that answers a single prompt gains later: it opens the
# graph first, and hashes or makes its weights.
PREFILL_FROM = 64
# More rows at once are faster, but their scores leave the cache.
PREFILL_CHUNK = 256


def arithmetic(filled: int) -> Arithmetic:
    """Of a prompt of which the prefill graph has run ``filled`` tokens."""
    return "int8" if filled else "none"


class Prefill:
    """The graph; ``opening`` makes its session for the first prompt that is long enough.

    Attributes:
        runs: how often it has run.
        session: over the graph; None before it is opened.
    """

    def __init__(self, opening: Callable[[], Any]) -> None:
        self._opening = opening
        self.session: Any = None
        self.runs = 0

    def fill(self, bind: Callable[[Any], None], ids: Ids, start: int) -> int:
        """Append all but the last of ``ids [1, seq]`` to a cache of ``start`` tokens, which ``bind`` binds;
        returns how many tokens that were: none of a short prompt.

        Raises:
            BundleError: the graph does not load or run.
            OutOfResource: its weights do not fit in memory.
        """
        count = int(ids.shape[1]) - 1
        if count < PREFILL_FROM:
            return 0
        if self.session is None:
            self.session = self._opening()
        binding = self.session.io_binding()
        bind(binding)
        for first in range(0, count, PREFILL_CHUNK):
            chunk = np.ascontiguousarray(ids[:, first : min(first + PREFILL_CHUNK, count)])
            total = start + first + chunk.shape[1]
            binding.bind_cpu_input("input_ids", chunk)
            binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
            with graph_errors_are_typed(f"the prefill graph failed at token {total}"):
                self.session.run_with_iobinding(binding)
            self.runs += 1
        return count


def prefill_of(
    bundle: Bundle, *, threads: int | None, provider: str, cache: bool, profile: Path | None = None
) -> Prefill | None:
    """That of ``bundle``, its weights from the prepacked cache where they are there and ``cache`` is wanted;
    None where the bundle has none or runs on another provider than the CPU. ``profile`` as in
    :func:`~.session.open_session`.
    """
    section = bundle.prefill
    if section is None or provider != "cpu":
        return None
    opened = partial(open_session, threads=threads, config=PREFILL, profile=profile)
    graph = bundle.path / section.file

    def opening() -> Any:
        session = open_prepacked(bundle, prepacked.PREFILL, opened) if cache else None
        return opened(graph, weights=int8_weights_of(bundle)) if session is None else session

    return Prefill(opening)
