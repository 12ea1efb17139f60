"""Passes that learn, on SmolLM2: what recovery gives back after pruning, and training after quantization.

    python -m edgepress.benchmarks.lab.programs.training WORK RESULTS [--only recover | qat] [--tokens COUNT]
        [--cuts narrow | layers]

Every step is the command line a user would type; its output stays in WORK, so that an interrupted check goes
on where it was. Each row is measured on held-out Wikipedia that no pass has seen; the curve is of the
calibration text that its pass held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....storage import read_json
from ...records.record import Measurement, learning_curves
from .model_chain import WINDOWS, Chain
from .results_page import write_table
from .small_models import shown, value
from .unstructured import Row, measure

COMMAND = "python -m edgepress.benchmarks.lab.programs.training WORK benchmarks/lab/results"
CALIBRATION = "--calibration wikipedia --samples 640 --length 512"
TOKENS = {"recover": 60_000, "qat": 100_000}
# What works in closed form reads as many as in the other tables; what learns reads all.
FEW = {"samples": 16}
CUTS = ("narrow", "layers")
TARGETS = {"recover": 0.5, "qat": 0.6}
TITLES = {
    "recover": "SmolLM2-135M without a quarter of its blocks' weights: what recovery gives back",
    "qat": "SmolLM2-135M at 3 and 2 bits: training after the best rounding",
}
HEADER = ["passes", "KL", "ppl", "top-1", "of the KL removed", "CPU s", "peak RSS MB"]


def tables(kind: str, tokens: int, cuts: Sequence[str] = CUTS) -> list[list[Row]]:
    """Rows by what they begin with: what was lost, what closed forms give back, and training."""
    if kind == "recover":
        learned = {"pass": "recover", "tokens": tokens, "measurements": 8, "samples": tokens // 400}
        return [_recovered({"pass": name, "keep": 0.75, **FEW}, learned) for name in cuts]
    return [_trained(bits, tokens) for bits in (3, 2)]


def _recovered(cut: dict[str, Any], learned: dict[str, Any]) -> list[Row]:
    """What is left after a cut, after its repair in closed form, and after training."""
    name = str(cut["pass"])
    bare = Row(f"{name}-unrepaired", ({**cut, "repair": "none"},))
    return [bare, Row(name, (cut,)), Row(f"{name}-recover", (cut, learned))]


def _trained(bits: int, tokens: int) -> list[Row]:
    """The best rounding, with as much text as the other tables give and with more, and training after it."""
    scheme = f"W{bits}A16-g64"
    fold = {"pass": "awq", "scheme": scheme, "quantize": False, **FEW}
    gptq = {"pass": "gptq", "scheme": scheme, "refinements": 2, **FEW}
    tune: dict[str, Any] = {"pass": "tune", "epochs": 4, **FEW}
    more = {"pass": "tune", "tokens": tokens // 4, "measurements": 4}
    learned = {"pass": "qat", "tokens": tokens, "measurements": 8}
    return [
        Row(f"w{bits}-tune", (fold, gptq, tune)),
        Row(f"w{bits}-tune-more", (fold, gptq, more)),
        Row(f"w{bits}-qat", (gptq, learned)),
    ]


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
    """A row; ``before`` is the least KL of the rows above, or None where it is not held against them."""
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
        + ", ".join(f"{at:,} → {loss:.4f}" for at, loss in zip(curve.tokens, curve.losses, strict=True))
        + f"; kept: {curve.tokens[curve.kept]:,}."
        for curve in learning_curves(steps)
    ]


def check(kind: str, chain: Chain, results: Path, tokens: int, cuts: Sequence[str] = CUTS) -> None:
    """Make one table; of fewer ``cuts`` than all it has a page of its own."""
    filled, notes = [], []
    for rows in tables(kind, tokens, cuts):
        before: list[float] = []
        for row in rows:
            lines = measure(chain, row, f"{CALIBRATION} --answers {chain.work}/answers")
            # Of pruning all that was lost counts, of rounding what the best one leaves.
            known = before[:1] if kind == "recover" else before if row is rows[-1] else []
            filled.append(table_row(row, chain, lines, min(known, default=None)))
            before += filter(None, [value(lines, "kl")])
            notes += curves(row, chain)
    notes.append(
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: KL(original ‖ row), "
        f"mean over {WINDOWS} windows of 512 tokens of held-out Wikipedia; {CALIBRATION}."
    )
    of = {"recover": "the first row", "qat": "the best row above"}[kind]
    notes.append(f"Of the KL removed: of that of {of}; target at least {TARGETS[kind]:.0%}.")
    notes.append("CPU s and peak RSS: of the whole process `edgepress compress`, one thread.")
    command, page = f"{COMMAND} --only {kind} --tokens {tokens}", f"{kind}-smollm2"
    if kind == "recover" and tuple(cuts) != CUTS:
        command, page = f"{command} --cuts {' '.join(cuts)}", "-".join([page, *cuts])
    write_table(results / f"{page}.md", TITLES[kind], command, HEADER, filled, notes)


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", choices=list(TOKENS))
    parser.add_argument("--tokens", type=int, help="budget of recover or qat")
    parser.add_argument(
        "--cuts", nargs="+", metavar="NAME", choices=CUTS, default=CUTS, help="what recovery begins with"
    )
    given = parser.parse_args()
    chain = Chain("smollm2", given.work, None, quick=False)
    for kind in TOKENS if given.only is None else (given.only,):
        check(kind, chain, given.results, given.tokens or TOKENS[kind], given.cuts)


if __name__ == "__main__":
    main()
