"""Passes that learn, on SmolLM2: what recovery gives back after pruning, and training after quantization.

    python -m edgepress.benchmarks.checks.training WORK RESULTS [--only recover | qat] [--tokens COUNT]

Every step is the command line a user would type; its output stays in WORK, so that an interrupted check goes
on where it was. Each row is measured on held-out Wikipedia that no pass has seen; the curve is of the
calibration text that its pass held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...storage import read_json
from ..learning_curves import learning_curves
from ..record import Measurement
from .model_chain import WINDOWS, Chain
from .pruning import Row, measure
from .small_models import shown, value
from .table import write_table

COMMAND = "python -m edgepress.benchmarks.checks.training WORK benchmarks/results"
CALIBRATION = "--calibration wikipedia --samples 96 --length 512"
TOKENS = 49152
NARROW = {"pass": "narrow", "keep": 0.75}
HEADER = ["passes", "KL", "ppl", "top-1", "of the lost KL won back", "CPU s", "peak RSS MB"]


def rows(kind: str, tokens: int) -> list[Row]:
    """The rows of a table, what is to be made good first."""
    if kind == "recover":
        learned = {"pass": "recover", "tokens": tokens, "measurements": 8}
        return [Row("narrow", (NARROW,)), Row("narrow-recover", (NARROW, learned))]
    learned = {"pass": "qat", "tokens": tokens, "measurements": 8}
    tune = {"pass": "tune", "tokens": tokens // 4, "measurements": 4}
    begun = {"pass": "autoround", "scheme": "W3A16-g64", "iterations": 20}
    return [Row("w3-autoround-tune", (begun, tune)), Row("w3-autoround-qat", (begun, learned))]


def described(passes: tuple[dict[str, Any], ...]) -> str:
    """The passes with their options, as a recipe has them."""
    names = []
    for options in passes:
        told = ", ".join(
            f"{key} {entry}" for key, entry in options.items() if key not in ("pass", "measurements")
        )
        names.append(f"{options['pass']} ({told})")
    return " → ".join(names)


def table_row(row: Row, chain: Chain, lines: list[Measurement], before: float | None) -> list[str]:
    """A row; ``before`` is the KL of the first one."""
    kl, cost = value(lines, "kl"), read_json(chain.work / f"{row.name}.cost.json")
    won = "–" if before is None or kl is None else f"{1 - kl / before:.0%}"
    return [
        described(row.passes),
        shown(kl, 3),
        shown(value(lines, "perplexity"), 1),
        shown(value(lines, "top1_agreement"), 3),
        won,
        f"{cost['cpu_seconds']:.0f}",
        f"{cost['rss_mb']:.0f}",
    ]


def curves(row: Row, chain: Chain) -> list[str]:
    """The held-out loss of each pass of a row that learned, as a note."""
    steps = read_json(chain.work / row.name / "edgepress.json")["steps"]
    return [
        f"{row.passes[-1]['pass']} ({row.name}), KL on held-out calibration text by tokens learned from: "
        + ", ".join(f"{at:,} → {loss:.3f}" for at, loss in zip(curve.tokens, curve.losses, strict=True))
        + f"; kept: {curve.tokens[curve.kept]:,}."
        for curve in learning_curves(steps)
    ]


def check(kind: str, chain: Chain, results: Path, tokens: int, arguments: str) -> None:
    """Make one table."""
    filled, notes, before = [], [], None
    for row in rows(kind, tokens):
        lines = measure(chain, row, CALIBRATION)
        filled.append(table_row(row, chain, lines, before))
        notes += curves(row, chain)
        before = value(lines, "kl") if before is None else before
    notes.append(
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: KL(original ‖ row), "
        f"mean over {WINDOWS} windows of 512 tokens of held-out Wikipedia; {CALIBRATION}."
    )
    notes.append("CPU s and peak RSS: of the whole process `edgepress compress`, one thread.")
    title = {
        "recover": "SmolLM2-135M without a quarter of its blocks' weights: what recovery gives back",
        "qat": "SmolLM2-135M at 3 bits: training after the best rounding",
    }[kind]
    write_table(results / f"{kind}-smollm2.md", title, COMMAND + arguments, HEADER, filled, notes)


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", choices=["recover", "qat"])
    parser.add_argument("--tokens", type=int, default=TOKENS, help="budget of recover and qat")
    given = parser.parse_args()
    chain = Chain("smollm2", given.work, None, quick=False)
    for kind in ("recover", "qat") if given.only is None else (given.only,):
        check(kind, chain, given.results, given.tokens, f" --only {kind} --tokens {given.tokens}")


if __name__ == "__main__":
    main()
