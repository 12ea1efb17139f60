"""SmolLM2 pruned, then rounded to 4 bits, beside 4 and 3 bits alone; and with fewer tokens in its vocabulary.

    python -m edgepress.benchmarks.lab.programs.pruned_and_rounded WORK RESULTS [--only NAME …] [--rounds 6]

Every step is the command line a user would type; its output stays in WORK, so that an interrupted check goes
on where it was. Bundles are timed in turns, with so many rounds in each of ten
processes. Without rounds nothing is timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ....compress.model.weights import WeightSource
from ....storage import sha256_json
from .interleaved import NEW_TOKENS, PROMPT, Rates, described_turns, kept_rates, ratio
from .model_chain import Chain, Variant
from .results_page import write_table
from .small_models import shown, value
from .unstructured import Row, measure

COMMAND = "python -m edgepress.benchmarks.lab.programs.pruned_and_rounded WORK benchmarks/lab/results"
CALIBRATION = "--calibration wikipedia --samples 16 --length 512"
HELD_OUT = "--windows 4"
W4: dict[str, Any] = {"pass": "gptq", "scheme": "W4A16-g64"}
ROWS = (
    Row("w4", (W4,)),
    Row("w3", ({"pass": "gptq", "scheme": "W3A16-g64"},)),
    Row("narrow-70-w4", ({"pass": "narrow", "keep": 0.7, "multiple": 64}, W4)),
    Row("layers-70-w4", ({"pass": "layers", "keep": 0.7}, W4)),
    Row("w4-vocabulary", (W4, {"pass": "vocabulary", "corpus": "wikipedia", "size": 16384})),
)
BASE = "w4"


def described(row: Row) -> str:
    """The passes with their options, as a recipe has them."""
    steps = []
    for options in row.passes:
        told = ", ".join(f"{key} {entry}" for key, entry in options.items() if key != "pass")
        steps.append(f"{options['pass']} ({told})")
    return " → ".join(steps)


def block_bytes(checkpoint: Path) -> int:
    """Bytes of the linears of all blocks, as the checkpoint stores them."""
    source = WeightSource.open(checkpoint)
    return sum(source.stored_bytes(f"{linear.name}.weight") for linear in source.anatomy.linears())


def rates_of(chain: Chain, names: list[str], rounds: int) -> Rates:
    """Rates of all bundles, measured together unless that was done."""
    file = chain.work / f"rounded-{sha256_json(sorted(names))[:8]}.json"
    return kept_rates(file, {name: chain.bundle(Variant(name, name, "")) for name in names}, rounds)


def table_row(chain: Chain, row: Row, rates: Rates) -> list[str]:
    """What is known about a row, measured now where it is not."""
    lines = measure(chain, row, CALIBRATION, HELD_OUT)
    bundle = chain.bundle(Variant(row.name, row.name, ""))
    size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    gains = [
        ratio(rates[row.name][kind], rates[BASE][kind]) if row.name != BASE and row.name in rates else None
        for kind in ("prefill", "decode")
    ]
    return [
        described(row),
        f"{block_bytes(chain.work / row.name) / 1e6:.1f}",
        f"{size / 1e6:.1f}",
        shown(value(lines, "bits_per_byte"), 3),
        shown(value(lines, "kl"), 3),
        shown(value(lines, "perplexity"), 1),
        *("–" if gain is None else gain[1] for gain in gains),
    ]


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[row.name for row in ROWS])
    parser.add_argument("--rounds", type=int, default=0)
    given = parser.parse_args()
    chain = Chain("smollm2", given.work, None, quick=True)
    chosen = [row for row in ROWS if given.only is None or row.name in given.only]
    for row in chosen:
        measure(chain, row, CALIBRATION, HELD_OUT)
    rates = rates_of(chain, [row.name for row in chosen], given.rounds) if given.rounds else {}
    rows = [table_row(chain, row, rates) for row in chosen]
    header = ["passes", "blocks MB", "bundle MB", "bits per byte", "KL", "ppl"]
    header += [f"{kind} × W4 [95 %]" for kind in ("prefill", "decode")]
    notes = [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid; calibrated with "
        f"{CALIBRATION}; measured on 4 windows of 512 tokens of held-out Wikipedia. Nothing was trained.",
        "Blocks MB: as the checkpoint stores their linears. A bundle stores 3 bits in 4, and embedding and "
        "head in 8 (groups of 32). Models with other tokens are compared by bits per byte alone.",
        f"Speed: bundles in turns, {described_turns(given.rounds)}: prompts of {PROMPT} tokens, "
        f"{NEW_TOKENS} decoded.",
    ]
    told = f" --only {' '.join(given.only)}" if given.only else ""
    told += f" --rounds {given.rounds}" if given.rounds else ""
    title = "SmolLM2-135M: pruned and rounded, against rounded alone"
    write_table(given.results / "pruned-and-rounded.md", title, COMMAND + told, header, rows, notes)


if __name__ == "__main__":
    main()
