"""Bundles timed interleaved: in each round all do the same work, and ratios are of pairs in one round.

    python -m edgepress.benchmarks.lab.study.interleaved '{"rounds": 6, "work": {}, "bundles": {NAME: PATH}}'

That prints the rates of one process. A table has those of ten or more, and its intervals are over processes:
all rounds of one decoded the same bundle 8 % faster than all of another, of which an interval over rounds
knows nothing. A process for each bundle in each round, as in ``edgepress profile``, would take hours. What is
opened later decodes faster (the same two bundles were 1.24 to 1.33 apart in one order, 1.06 in the other): in
half of the rounds of each process, also of a single one, they were opened in one order, in the others in the
other.

A bundle's turn begins with a prompt or a batch that is not counted: what ran before it took its weights and
buffers out of the caches of this machine, where a user of one model has them. One more is counted and no
median of several: the speed of a shared machine drifts within seconds, and the two of a pair should be near
each other.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ....files.storage import read_json, write_json
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ....runtime.engine.encoder import Encoder
from ....runtime.session.threads import thread_budget
from ...speed.paired import compare_rates

# By bundle and by what is counted in a second (``prefill 128``, ``decode 128``, ``sentences``): a rate for
# each round; and the same with a list for each process.
Rounds = dict[str, dict[str, list[float]]]
Rates = dict[str, dict[str, list[list[float]]]]


@dataclass(frozen=True)
class TimedWork:
    """What a bundle does in its turn.

    Attributes:
        prompts: tokens of each prompt a decoder fills its cache with; ``new_tokens`` follow.
        sentences, words: how many an encoder embeds, and how long they are.
    """

    prompts: tuple[int, ...] = (128,)
    new_tokens: int = 16
    sentences: int = 32
    words: int = 40


def timed(bundles: Mapping[str, Path], work: TimedWork, rounds: int, processes: int) -> Rates:
    """Rates of every bundle in ``rounds`` of each of ``processes``, which begin with one order of the bundles
    and with the other in turn. No processes: in this one.
    """
    rates: Rates = {}
    for number in range(max(1, processes)):
        chosen = dict(list(bundles.items())[:: 1 if number % 2 == 0 else -1])
        found = _in_a_process(chosen, work, rounds) if processes else timed_here(chosen, work, rounds)
        for name, kinds in found.items():
            for kind, each in kinds.items():
                rates.setdefault(name, {}).setdefault(kind, []).append(each)
    return rates


def _in_a_process(bundles: Mapping[str, Path], work: TimedWork, rounds: int) -> Rounds:
    paths = {name: str(path) for name, path in bundles.items()}
    job = {"rounds": rounds, "work": asdict(work), "bundles": paths}
    command = [sys.executable, "-m", f"{__package__}.{Path(__file__).stem}", json.dumps(job)]
    found: Rounds = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def timed_here(bundles: Mapping[str, Path], work: TimedWork, rounds: int) -> Rounds:
    """Rates of every bundle in this process, in tokens or sentences a second: of the first half of the rounds
    with the bundles opened in this order, of the others with all opened again the other way round.
    """
    rates: Rounds = {name: {} for name in bundles}
    for names, count in ((list(bundles), (rounds + 1) // 2), (list(bundles)[::-1], rounds // 2)):
        if count:
            _run_rounds({name: _turns(bundles[name], work) for name in names}, count, rates)
    return rates


def _run_rounds(turns: dict[str, list[Callable[[], dict[str, float]]]], rounds: int, rates: Rounds) -> None:
    """Add the rates of ``rounds`` of the bundles that were opened for ``turns``."""
    for prompt in range(len(next(iter(turns.values())))):
        for kinds in turns.values():
            kinds[prompt]()
        for number in range(rounds):
            for name in list(turns) if number % 2 == 0 else list(turns)[::-1]:
                for kind, rate in turns[name][prompt]().items():
                    rates[name].setdefault(kind, []).append(rate)


def recorded(file: Path, bundles: Mapping[str, Path], work: TimedWork, rounds: int, processes: int) -> Rates:
    """What :func:`timed` finds, or found before for the same question and wrote to ``file``."""
    asked: dict[str, Any] = {"rounds": rounds, "processes": processes, "bundles": sorted(bundles)}
    asked["work"] = json.loads(json.dumps(asdict(work)))
    if file.exists():
        known: dict[str, Any] = read_json(file)
        if {key: known.get(key) for key in asked} == asked:
            rates: Rates = known["rates"]
            return rates
    rates = timed(bundles, work, rounds, processes)
    write_json(file, {**asked, "rates": rates})
    return rates


def _turns(path: Path, work: TimedWork) -> list[Callable[[], dict[str, float]]]:
    """What the bundle does in its turn, for each prompt."""
    bundle = Bundle.open(path)
    if bundle.kind == "encoder":
        encoder = Encoder.open(bundle, thread_budget())
        texts = [f"{number} " + "word " * work.words for number in range(work.sentences)]
        return [partial(_encoding, encoder, texts)]
    decoder = Decoder.open(bundle, thread_budget())
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, decoder.vocab_size, prompt).tolist() for prompt in work.prompts]
    return [partial(_decoding, decoder, prompt, work.new_tokens) for prompt in prompts]


def _encoding(encoder: Encoder, texts: list[str]) -> dict[str, float]:
    encoder.encode(texts)
    start = perf_counter()
    encoder.encode(texts)
    return {"sentences": len(texts) / (perf_counter() - start)}


def _decoding(decoder: Decoder, ids: list[int], new_tokens: int) -> dict[str, float]:
    decoder.prefill(ids, new_tokens=new_tokens)
    start = perf_counter()
    logits = decoder.prefill(ids, new_tokens=new_tokens)
    filled = perf_counter()
    for _ in range(new_tokens):
        logits = decoder.step(int(logits.argmax()))
    prefill, decode = len(ids) / (filled - start), new_tokens / (perf_counter() - filled)
    return {f"prefill {len(ids)}": prefill, f"decode {len(ids)}": decode}


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
    job = json.loads(sys.argv[1])
    bundles = {name: Path(path) for name, path in job["bundles"].items()}
    options = {**job["work"], "prompts": tuple(job["work"].get("prompts", (128,)))}
    print(json.dumps(timed_here(bundles, TimedWork(**options), job["rounds"])))


if __name__ == "__main__":
    main()
