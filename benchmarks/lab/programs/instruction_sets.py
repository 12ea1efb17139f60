"""Prompts of one bundle by several sets of instructions of edgepress's operators, in turn.

    python -m edgepress.benchmarks.lab.programs.instruction_sets BUNDLE SET SET... [--rounds 8]

A set is a value of ``EDGEPRESS_KERNELS``; the ratios are over the first. Each round starts a process for each
set, every other round in reverse order, and takes of each prompt the fastest of three. A set that gives other
logits than the first ends it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ...records.summary import Rows, bootstrap_ci, medians
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.instruction_sets"
PROMPTS = (16, 32, 64, 128, 256, 512, 1024)
_REPEATS = 3
# By the set and the length of the prompt, what `seconds` finds.
Round = Mapping[str, Mapping[str, list[float]]]


def seconds(decoder: Decoder, prompts: Sequence[int]) -> dict[str, list[float]]:
    """By the length of each prompt: the seconds of its first token, and the sum of that token's logits."""
    ids = np.random.default_rng(0).integers(0, decoder.vocab_size, max(prompts)).tolist()
    found = {}
    for length in prompts:
        taken = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            logits = decoder.prefill(ids[:length])
            taken.append(time.perf_counter() - began)
        found[str(length)] = [min(taken), float(np.abs(logits).sum(dtype=np.float64))]
    return found


def in_process(bundle: Path, instructions: str, threads: int) -> Mapping[str, list[float]]:
    """As :func:`seconds`, of a fresh process with ``instructions``."""
    command = [sys.executable, "-m", "edgepress.benchmarks.lab.programs.instruction_sets", str(bundle)]
    done = subprocess.run(
        [*command, "--threads", str(threads)],
        env={**os.environ, "EDGEPRESS_KERNELS": instructions},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: Mapping[str, list[float]] = json.loads(done.stdout)
    return found


def row(length: str, sets: Sequence[str], rounds: Sequence[Round]) -> list[str]:
    """Tokens a second of each set, the median of its rounds, and how many times as fast as the first."""
    taken = np.array([[one[name][length][0] for name in sets] for one in rounds])
    cells = [length, *(f"{int(length) / value:.0f}" for value in np.median(taken, axis=0))]
    for column in range(1, len(sets)):
        pairs = np.column_stack([taken[:, 0], taken[:, column]])
        interval = bootstrap_ci(pairs, _ratios)
        around = "" if interval is None else " [{:.2f}, {:.2f}]".format(*interval)
        cells.append(f"{float(_ratios(pairs)):.2f}{around}")
    return cells


def _ratios(pairs: Rows) -> Rows:
    return medians(pairs[..., 0] / pairs[..., 1])


def main() -> None:
    """The command line; without sets, one process's figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--title", default="Prompts by instructions")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/lab/results"))
    asked = parser.parse_args()
    if not asked.sets:
        print(json.dumps(seconds(Decoder.open(Bundle.open(asked.bundle), threads=asked.threads), PROMPTS)))
        return
    rounds = []
    for index in range(asked.rounds):
        order = asked.sets if index % 2 == 0 else asked.sets[::-1]
        rounds.append({name: in_process(asked.bundle, name, asked.threads) for name in order})
        for length in map(str, PROMPTS):
            if len({one[length][1] for one in rounds[-1].values()}) > 1:
                raise SystemExit(f"the sets give other logits after {length} tokens")
    first, *others = asked.sets
    header = ["tokens", *(f"{name}, tok/s" for name in asked.sets)]
    header += [f"{name} × {first} [95 %]" for name in others]
    rows = [row(str(length), asked.sets, rounds) for length in PROMPTS]
    notes = [f"{asked.threads} thread, {asked.rounds} rounds; all sets gave the same logits."]
    command = f"{COMMAND} BUNDLE {' '.join(asked.sets)} --rounds {asked.rounds} --threads {asked.threads}"
    write_table(asked.results / "kernels.md", asked.title, command, header, rows, notes)


if __name__ == "__main__":
    main()
