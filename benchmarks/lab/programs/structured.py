"""Smaller blocks: what each structured pass costs SmolLM2 and MiniLM, repaired or not, and what it gains.

    python -m edgepress.benchmarks.lab.programs.structured WORK RESULTS --model smollm2 [--only NAME …]
        [--timed NAME … [--rounds 6] [--processes 10]] [--place PLACE --peers NAME …] [--page NAME]

Every step is the command line a user would type; its output stays in WORK, so that an interrupted check goes
on where it was. A row that was left out is not in the table. Rows named by ``--timed`` are exported, proven,
and timed in turns with the dense original, all in one run. With a PLACE (see
:mod:`edgepress.benchmarks.lab.peers`) Torch-Pruning works on the same model and tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ....compress.prune.structured.budget import WEIGHTS, Budget
from ....storage import read_json, write_atomic
from ...records.record import Measurement, read
from ..peers.pruners import torch_pruning
from ..peers.workspace import Place
from .distillation import text
from .interleaved import (
    NEW_TOKENS,
    PROCESSES,
    PROMPT,
    WORDS,
    Rates,
    described_turns,
    kept_rates,
    ratio,
)
from .interleaved import SENTENCES as TIMED_SENTENCES
from .model_chain import Chain, Variant
from .pruning_peers import calibration_tokens, measure_peer, peer_name
from .results_page import write_table
from .small_models import shown, value
from .unstructured import Row, measure

COMMAND = "python -m edgepress.benchmarks.lab.programs.structured WORK benchmarks/lab/results"
# A decoder's sequences of calibration text; an encoder's sentences and as many single words of it.
SAMPLES, LENGTH, SENTENCES, SENTENCE_LENGTH = 8, 512, 600, 48
# What of the held-out text is measured: many rows have to fit an hour.
HELD_OUT = {"smollm2": "--windows 4", "minilm": "--sentences 64"}
DENSE = "fp32"
DECODE = "decode"
RATES = {"smollm2": ("prefill", DECODE), "minilm": ("sentences",)}
# What a decoded token reads: the blocks, and the head once.
READ = Budget(of="bytes")
KEPT = (0.9, 0.8, 0.7, 0.6, 0.5)
PLAIN = {"widths": "uniform", "importance": "magnitude", "repair": "none"}
METHODS: dict[str, dict[str, Any]] = {
    "narrow": {"pass": "narrow"},
    "narrow-corrected": {"pass": "narrow", "correction": 1},
    "narrow-unrepaired": {"pass": "narrow", "repair": "none"},
    "ffn": {"pass": "ffn"},
    "ffn-corrected": {"pass": "ffn", "correction": 1},
    "ffn-unrepaired": {"pass": "ffn", "repair": "none"},
    "ffn-uniform": {"pass": "ffn", "widths": "uniform"},
    "ffn-128": {"pass": "ffn", "multiple": 128},
    "narrow-128": {"pass": "narrow", "multiple": 128},
    "ffn-plain": {"pass": "ffn", **PLAIN},
    "heads": {"pass": "heads"},
    "heads-unrepaired": {"pass": "heads", "repair": "none"},
    "layers": {"pass": "layers"},
    "layers-unrepaired": {"pass": "layers", "repair": "none"},
    "width": {"pass": "width"},
    "width-unrepaired": {"pass": "width", "repair": "none"},
    "width-damped": {"pass": "width", "damping": 0.1},
    "width-reconstruction": {"pass": "width", "basis": "reconstruction"},
    "width-pca": {"pass": "width", "basis": "pca"},
    "width-pca-separate": {"pass": "width", "basis": "pca", "tied": "separate"},
    "layers-greedy": {"pass": "layers", "criterion": "greedy"},
}


def rows() -> list[Row]:
    """All rows: every method at every share."""
    return [
        Row(f"{name}-{round(100 * keep)}", ({**method, "keep": keep},))
        for keep in KEPT
        for name, method in METHODS.items()
    ]


def described(passes: tuple[dict[str, Any], ...]) -> str:
    """The passes with their options, as a recipe has them."""
    names = []
    for options in passes:
        told = ", ".join(f"{key} {entry}" for key, entry in options.items() if key not in ("pass", "keep"))
        names.append(f"{options['pass']} ({told})" if told else str(options["pass"]))
    return " → ".join(names)


def judged(chain: Chain, row: Row) -> list[Measurement]:
    """The lines about the quality of a row, made and measured now where it is not."""
    return measure(chain, row, calibration(chain), HELD_OUT[chain.model], embedding=None)


def timed(chain: Chain, names: list[str], rounds: int, processes: int) -> dict[str, Rates]:
    """By row of ``names``: its rates and those of the original, the two in turns, unless that was done. All
    bundles are there before the first is timed.
    """
    if not names:
        return {}
    bundles = {}
    for row in rows():
        if row.name in names:
            judged(chain, row)
            bundles[row.name] = chain.bundle(Variant(row.name, row.name, ""))
    dense = chain.bundle(Variant("original", DENSE, None))
    return {
        name: kept_rates(chain.work / f"{name}.speed.json", {name: bundle, DENSE: dense}, rounds, processes)
        for name, bundle in bundles.items()
    }


def quality(lines: list[Measurement], dense: list[Measurement]) -> list[str]:
    """What is left: of a decoder KL, perplexity and top-1; of an encoder cosine and Spearman, beside
    dense.
    """
    if value(lines, "kl") is not None:
        return [
            shown(value(lines, "kl"), 3),
            shown(value(lines, "perplexity"), 1),
            shown(value(lines, "top1_agreement"), 3),
        ]
    found = [shown(value(lines, "cosine"), 4)]
    for metric in ("spearman_wordsim353", "spearman_simlex999"):
        mine, theirs = value(lines, metric), value(dense, metric)
        share = f" ({mine / theirs:.0%})" if mine is not None and theirs else ""
        found.append(f"{shown(mine, 3)}{share}")
    return found


def calibration(chain: Chain) -> str:
    """The options of the text that rows are calibrated with, which is written where it is not there."""
    if chain.model == "smollm2":
        return f"--calibration wikipedia --samples {SAMPLES} --length {LENGTH}"
    file = chain.work / "text.txt"
    if not file.exists():
        write_atomic(file, text(SENTENCES, SENTENCES).encode())
    return f"--calibration {file} --samples {2 * SENTENCES} --length {SENTENCE_LENGTH}"


def table_row(chain: Chain, row: Row, dense: list[Measurement], rates: dict[str, Rates]) -> list[str]:
    """What is known about a row, measured now where it is not."""
    lines = judged(chain, row)
    left, asked = share_left(chain, row.name, WEIGHTS), row.passes[0].get("keep")
    kept = f"{left:.1%}" + ("" if asked is None else f" (asked {asked:.0%})")
    return [described(row.passes), kept, *_measured(chain, row.name, left, lines, dense, rates)]


def peer_row(chain: Chain, place: Place, variant: str, dense: list[Measurement]) -> list[str]:
    """As :func:`table_row`, of what Torch-Pruning makes."""
    tokens = calibration_tokens(chain, SAMPLES, LENGTH)
    lines = measure_peer(chain, place, torch_pruning, variant, tokens, HELD_OUT[chain.model])
    (criterion, share), name = torch_pruning.VARIANTS[variant], peer_name("torch_pruning", variant)
    label, left = f"{torch_pruning.TITLE}: MLP channels by {criterion}", share_left(chain, name, WEIGHTS)
    shares = f"{left:.1%} (asked {share} %)"
    return [label, shares, *_measured(chain, name, left, lines, dense, {})]


def share_left(chain: Chain, name: str, counted: Budget) -> float:
    """What a checkpoint has of the original: of the weights of blocks, or of all that a token reads."""
    whole = counted.total(WeightSource.open(resolve(chain.model).path).anatomy)
    return counted.total(WeightSource.open(chain.work / name).anatomy) / whole


def _measured(
    chain: Chain,
    name: str,
    left: float,
    lines: list[Measurement],
    dense: list[Measurement],
    rates: dict[str, Rates],
) -> list[str]:
    return [
        f"{(chain.work / name / 'model.safetensors').stat().st_size / 1e6:.0f}",
        *quality(lines, dense),
        *(
            _gained(rates, name, kind, left, *([share_left(chain, name, READ)] if kind == DECODE else []))
            for kind in RATES[chain.model]
        ),
        f"{read_json(chain.work / f'{name}.cost.json')['cpu_seconds']:.0f}",
    ]


def _gained(rates: dict[str, Rates], name: str, kind: str, *left: float) -> str:
    """The ratio to dense, and by how much latency fell for each part of the weights that went, however they
    are counted.
    """
    together = rates.get(name)
    found = None if together is None else ratio(together[name][kind], together[DENSE][kind])
    if found is None or max(left) >= 1:
        return "–"
    return f"{found[1]}; {' · '.join(f'{(1 - 1 / found[0]) / (1 - share):.2f}' for share in left)}"


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--model", choices=["smollm2", "minilm"], required=True)
    names = [row.name for row in rows()]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names)
    parser.add_argument("--timed", nargs="+", metavar="NAME", choices=names, default=[])
    parser.add_argument("--rounds", type=int, default=6, help="of each process")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="in which a row is timed")
    parser.add_argument("--place", type=Path, help="directory with the environments of other tools")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=list(torch_pruning.VARIANTS), default=[]
    )
    parser.add_argument("--page", help="name of the results file [default: structured-pruning-MODEL]")
    given = parser.parse_args()
    if given.peers and given.place is None:
        parser.error("--peers needs --place")
    chain = Chain(given.model, given.work, None, quick=True)
    dense = read([chain.quality(Variant("original", DENSE, None))]) if given.model == "minilm" else []
    chosen = [row for row in rows() if given.only is None or row.name in given.only]
    rates = timed(chain, given.timed, given.rounds, given.processes)
    filled = [table_row(chain, row, dense, rates) for row in chosen]
    filled += [peer_row(chain, Place(given.place), variant, dense) for variant in given.peers]
    measured = ["KL", "ppl", "top-1"] if given.model == "smollm2" else ["cosine", "WordSim-353", "SimLex-999"]
    gained = [f"{kind} × dense [95 %]; latency for weights" for kind in RATES[given.model]]
    header = ["pass", "blocks left", "checkpoint MB", *measured, *gained, "CPU s"]
    title = f"Structured pruning of {given.model}: channels, heads, layers and width"
    file = given.results / f"{given.page or f'structured-pruning-{given.model}'}.md"
    turns = described_turns(given.rounds, given.processes)
    write_table(file, title, COMMAND + told(given), header, filled, notes(given.model, turns))


def told(given: argparse.Namespace) -> str:
    """The options of the command line as they were given."""
    options = f" --model {given.model}"
    options += f" --only {' '.join(given.only)}" if given.only else ""
    options += f" --timed {' '.join(given.timed)} --rounds {given.rounds}" if given.timed else ""
    options += f" --processes {given.processes}" if given.timed and given.processes != PROCESSES else ""
    options += f" --place PLACE --peers {' '.join(given.peers)}" if given.peers else ""
    return options + (f" --page {given.page}" if given.page else "")


def notes(model: str, turns: str) -> list[str]:
    """What the columns mean."""
    what = {
        "smollm2": "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: "
        "KL(original ‖ row), mean over 4 windows of 512 tokens of held-out Wikipedia; calibrated with "
        f"--calibration wikipedia --samples {SAMPLES} --length {LENGTH}",
        "minilm": "Model: all-MiniLM-L6-v2. Spearman of word pairs, in brackets the share of the original's; "
        f"calibrated with {SENTENCES} sentences and {SENTENCES} single words of the Wikipedia demo corpus",
    }[model]
    return [
        f"{what}. Nothing was trained.",
        "Blocks left: weights of all blocks, embeddings and head aside.",
        "× dense: float32 bundles in ONNX Runtime, each in turns with dense, "
        f"{turns}: prompts of {PROMPT} tokens, {NEW_TOKENS} decoded; or "
        f"{TIMED_SENTENCES} sentences of {WORDS} words, tokenizing included; each after one that is not "
        "counted. Then the share of latency that is gone over that of the blocks' weights (target at least "
        "0.8), and for decoding, which reads the head as well, over that of all weights read.",
        "ffn (widths uniform, importance magnitude, repair none) is what a plain structured pruner does; "
        "layers (repair none) is ShortGPT.",
    ]


if __name__ == "__main__":
    main()
