"""The prefill graph of a bundle: it fills a decoder's cache with many tokens at once and computes no logits.

``MatMulNBits`` is made for one token. Where many come at once, products of 8-bit integers are several times
as fast: activations are rounded per token, weights to int8 with one scale for each output, made on the device
of the codes that the bundle has (:mod:`..prepack.int8_weights`). They take a byte a weight, in a file of the
prepacked cache that is mapped; a machine without that file uses the model's own graph. The last token of a
prompt always goes through the model's own graph, which makes the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BundleError
from ..bundle.bundle import Bundle
from ..prepack.prepacked import PrepackedEntry, find
from ..session.session import PREFILL, PREFILL_PACKED, graph_errors_are_typed, open_session
from .token_limits import Ids

# From here on a prompt is faster this way, the step that its last token costs included.
PREFILL_FROM = 32
# Opening the graph takes about what it saves on so many tokens: it is opened when they have come together.
OPEN_FROM = 48
# Each run packs all weights as it goes, which more rows at once share; but their scores leave the cache.
PREFILL_CHUNK = 256
# Opening the graph with weights that are packed takes what packing takes in so many runs: three where they
# have 0.8 GB, six where they have 0.1.
PACKED_FROM = 4

Opening = Callable[[bool], Any]


class Prefill:
    """The graph, opened once it is worth it, and with packed weights when that is: for a prompt that takes
    many runs alone, and from the second prompt on. One may be all that a process fills; after two come more.

    ``opening`` is asked for its session, with packed weights or without, and returns it or None. ``packed``
    opens it so the first time.

    Attributes:
        runs: how often it has run.
    """

    def __init__(self, opening: Opening, *, packed: bool = False) -> None:
        self._opening = opening
        self._session: Any = None
        self._opened, self._packed = False, packed
        self._seen = 0
        self.runs = 0

    def fill(self, bind: Callable[[Any], None], ids: Ids, start: int) -> int:
        """Append all but the last of ``ids [1, seq]`` to a cache of ``start`` tokens, which ``bind`` binds;
        returns how many tokens that were: none where it is not worth it or the graph is not there.
        """
        count = int(ids.shape[1]) - 1
        if count < PREFILL_FROM:
            return 0
        self._seen += count
        if not self._opened and self._seen < OPEN_FROM:
            return 0
        if not self._packed and (self.runs > 0 or count > PREFILL_CHUNK * (PACKED_FROM - 1)):
            self._opened, self._packed = False, True
        session = self.session()
        if session is None:
            return 0
        binding = session.io_binding()
        bind(binding)
        for first in range(0, count, PREFILL_CHUNK):
            chunk = np.ascontiguousarray(ids[:, first : min(first + PREFILL_CHUNK, count)])
            total = start + first + chunk.shape[1]
            binding.bind_cpu_input("input_ids", chunk)
            binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
            with graph_errors_are_typed(f"the prefill graph failed at token {total}"):
                session.run_with_iobinding(binding)
            self.runs += 1
        return count

    def session(self) -> Any:
        """Over the graph; None where this machine has not made its weights."""
        if not self._opened:
            self._opened, self._session = True, None  # the one before is gone before the next is there
            self._session = self._opening(self._packed)
        return self._session


def prefill_of(
    bundle: Bundle, *, threads: int | None, provider: str, cache: bool, profile: Path | None = None
) -> Prefill | None:
    """That of ``bundle``, from the prepacked cache; None where the bundle has none or does without.
    ``profile`` as in :func:`~.session.open_session`; what is profiled is one session, with packed weights.
    """
    if bundle.prefill is None or provider != "cpu" or not cache:
        return None

    def opening(packed: bool) -> Any:
        entry = find(bundle)
        return (
            None if entry is None else _opened(entry, threads, profile, PREFILL_PACKED if packed else PREFILL)
        )

    return Prefill(opening, packed=profile is not None)


def _opened(
    entry: PrepackedEntry, threads: int | None, profile: Path | None, config: Mapping[str, str]
) -> Any:
    if not entry.prefill.is_file():
        return None
    try:
        return open_session(entry.prefill, threads=threads, config=config, optimize=False, profile=profile)
    except BundleError:
        entry.drop()
        return None
