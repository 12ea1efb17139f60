"""Bundles timed in turns in one process: in each round all of them do the same work, and ratios are of pairs
in one round.

For many bundles at once: a process for each in each round, as in ``edgepress profile``, would take hours.

A turn begins with a prompt or a batch that is not counted: what ran before it took its weights and buffers
out of the caches of this machine, where a user of one model has them. One more is counted and no median of
several: the speed of a shared machine drifts within seconds, and the two of a pair should be near each other.

An interval holds what differs from round to round, not from process to process: of one bundle whose weights
are larger than the caches, all rounds of one process decoded 8 % slower than all of another, presumably for
where the weights lay in memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...runtime.bundle import Bundle
from ...runtime.decoder import Decoder
from ...runtime.encoder import Encoder
from ...runtime.prepack import prepack
from ...runtime.threads import thread_budget
from ...storage import read_json, write_json
from ..paired import compare_rates

PROMPT, NEW_TOKENS, SENTENCES, WORDS = 128, 16, 32, 40

# By bundle and by what is counted in a second: a rate for each round.
Rates = dict[str, dict[str, list[float]]]


def timed_in_turns(bundles: Mapping[str, Path], rounds: int) -> Rates:
    """Rates of every bundle: ``prefill`` and ``decode`` in tokens a second, or ``sentences`` a second."""
    turns = {name: _turn(path) for name, path in bundles.items()}
    for turn in turns.values():
        turn()
    rates: Rates = {name: {} for name in bundles}
    for number in range(rounds):
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in order:
            for kind, rate in turns[name]().items():
                rates[name].setdefault(kind, []).append(rate)
    return rates


def kept_rates(file: Path, bundles: Mapping[str, Path], rounds: int) -> Rates:
    """What :func:`timed_in_turns` finds about ``bundles``, or found before and wrote to ``file``."""
    if not file.exists():
        write_json(file, timed_in_turns(bundles, rounds))
    found: Rates = read_json(file)
    return found


def _turn(path: Path) -> Callable[[], dict[str, float]]:
    bundle = Bundle.open(path)
    if bundle.kind == "encoder":
        encoder = Encoder.open(bundle, thread_budget())
        texts = [f"{number} " + "word " * WORDS for number in range(SENTENCES)]
        return lambda: _encoding(encoder, texts)
    decoder = after_a_first_run(bundle)
    ids = np.random.default_rng(0).integers(0, decoder.vocab_size, PROMPT).tolist()
    return lambda: _decoding(decoder, ids)


def after_a_first_run(bundle: Bundle) -> Decoder:
    """The decoder as every run but the first opens it: with the weights of the bundle's own prefill graph.

    Else it would depend on what ran before which graph is timed.
    """
    if bundle.prefill is not None:
        prepack(bundle)
    return Decoder.open(bundle, thread_budget())


def _encoding(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    encoder.encode(texts)
    start = time.perf_counter()
    encoder.encode(texts)
    return {"sentences": len(texts) / (time.perf_counter() - start)}


def _decoding(decoder: Decoder, ids: list[int]) -> dict[str, float]:
    decoder.prefill(ids, new_tokens=NEW_TOKENS)
    start = time.perf_counter()
    logits = decoder.prefill(ids, new_tokens=NEW_TOKENS)
    filled = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits = decoder.step(int(logits.argmax()))
    return {"prefill": len(ids) / (filled - start), "decode": NEW_TOKENS / (time.perf_counter() - filled)}


def ratio(mine: list[float], other: list[float]) -> tuple[float, str] | None:
    """The median of the paired ratios, and with its interval as a table shows it; None without enough
    pairs.
    """
    found = compare_rates(mine, other)
    if found.ratio_median is None or found.ci95 is None:
        return None
    low, high = found.ci95
    return found.ratio_median, f"{found.ratio_median:.2f} [{low:.2f}, {high:.2f}]"
