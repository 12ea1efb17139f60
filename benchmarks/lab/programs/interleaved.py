"""Bundles timed in turns: in each round all of them do the same work, and ratios are of pairs in one round.

    python -m edgepress.benchmarks.lab.programs.interleaved ROUNDS NAME=BUNDLE …

That prints the rates of one process. A table has those of ten or more, and its intervals are over processes:
all rounds of one decoded the same bundle 8 % faster than all of another, of which an interval over rounds
knows nothing. A process for each bundle in each round, as in ``edgepress profile``, would take hours.

A turn begins with a prompt or a batch that is not counted: what ran before it took its weights and buffers
out of the caches of this machine, where a user of one model has them. One more is counted and no median of
several: the speed of a shared machine drifts within seconds, and the two of a pair should be near each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ....runtime.engine.encoder import Encoder
from ....runtime.prepack.prepack import prepack
from ....runtime.session.threads import thread_budget
from ....storage import read_json, write_json
from ...speed.paired import compare_rates

PROMPT, NEW_TOKENS, SENTENCES, WORDS = 128, 16, 32, 40
PROCESSES = 10

# By bundle and by what is counted in a second: a rate for each round.
Rounds = dict[str, dict[str, list[float]]]
# The same with a list for each process.
Rates = dict[str, dict[str, list[list[float]]]]


def timed_in_turns(bundles: Mapping[str, Path], rounds: int, processes: int = PROCESSES) -> Rates:
    """Rates of every bundle in ``rounds`` of each of ``processes``, which open them in turns in this order
    and the other way round.
    """
    rates: Rates = {}
    module = f"{__package__}.{Path(__file__).stem}"
    for number in range(processes):
        names = list(bundles) if number % 2 == 0 else list(bundles)[::-1]
        told = [f"{name}={bundles[name]}" for name in names]
        command = [sys.executable, "-m", module, str(rounds), *told]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for name, kinds in json.loads(output).items():
            for kind, found in kinds.items():
                rates.setdefault(name, {}).setdefault(kind, []).append(found)
    return rates


def timed_here(bundles: Mapping[str, Path], rounds: int) -> Rounds:
    """Rates of every bundle in this process: ``prefill`` and ``decode`` in tokens a second, or ``sentences``
    a second.
    """
    turns = {name: _turn(path) for name, path in bundles.items()}
    for turn in turns.values():
        turn()
    rates: Rounds = {name: {} for name in bundles}
    for number in range(rounds):
        order = list(turns) if number % 2 == 0 else list(turns)[::-1]
        for name in order:
            for kind, rate in turns[name]().items():
                rates[name].setdefault(kind, []).append(rate)
    return rates


def kept_rates(file: Path, bundles: Mapping[str, Path], rounds: int, processes: int = PROCESSES) -> Rates:
    """What :func:`timed_in_turns` finds about ``bundles``, or found before, asked the same, and wrote to
    ``file``.
    """
    asked = {"rounds": rounds, "processes": processes, "bundles": sorted(bundles)}
    if file.exists():
        kept: dict[str, Any] = read_json(file)
        if {key: kept.get(key) for key in asked} == asked:
            return kept["rates"]  # type: ignore[no-any-return]
    rates = timed_in_turns(bundles, rounds, processes)
    write_json(file, {**asked, "rates": rates})
    return rates


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


def described_turns(rounds: int, processes: int = PROCESSES) -> str:
    """How ratios of a table came about, in words."""
    return f"{rounds} rounds in each of {processes} processes, median over processes of their paired ratios"


def ratio(mine: list[list[float]], other: list[list[float]]) -> tuple[float, str] | None:
    """The median over processes of the median of their paired ratios, and with its interval as a table shows
    it; None of too few processes.
    """
    by_process = [float(np.median(np.divide(one, two))) for one, two in zip(mine, other, strict=True)]
    found = compare_rates(by_process, [1.0] * len(by_process))
    if found.ratio_median is None or found.ci95 is None:
        return None
    low, high = found.ci95
    return found.ratio_median, f"{found.ratio_median:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print the rates of one process."""
    bundles = {name: Path(path) for name, _, path in (told.partition("=") for told in sys.argv[2:])}
    print(json.dumps(timed_here(bundles, int(sys.argv[1]))))


if __name__ == "__main__":
    main()
