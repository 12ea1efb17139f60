"""What ``fit`` delivers, beside recipes on the same held-out text; and how long its solver takes.

    python -m edgepress.benchmarks.lab.programs.fit_budgets WORK [RESULTS]

Each directory of WORK that holds a ``fit.json`` is a row, and so is each bundle that a ``recipes/NAME.jsonl``
of WORK is about, which ``edgepress validate --record`` wrote.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from ....fit.solve import Infeasible, Limit, Solution, solve
from ....storage import read_json
from ...records import record as records
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.fit_budgets WORK"
PAGE = "Budgets"
UNITS, OPTIONS, LIMITS, PROGRAMMES = 300, 12, 4, 10


def programme(seed: int) -> tuple[list[list[float]], list[Limit]]:
    """Units of log-normal sizes, whose damage falls with the size of an option; a size and three times that
    go with it more or less, each bounded at about a third of its range.
    """
    draw = np.random.default_rng(seed)
    sizes = np.sort(draw.uniform(1, 8, (UNITS, OPTIONS)), 1) * draw.lognormal(12, 1, (UNITS, 1))
    damages = np.exp(-2 * sizes / sizes.mean(1, keepdims=True)) * draw.lognormal(0, 1, (UNITS, 1))
    damages *= draw.uniform(0.9, 1.1, damages.shape)
    times = [sizes * draw.uniform(0.5, 1.5, sizes.shape) for _ in range(LIMITS - 1)]
    limits = [
        Limit(str(number), uses.tolist(), float(0.65 * uses.min(1).sum() + 0.35 * uses.max(1).sum()))
        for number, uses in enumerate((sizes, *times))
    ]
    return damages.tolist(), limits


def solver_rows() -> list[list[str]]:
    """The slowest and the widest gap of all programmes, and of those that nothing keeps the slowest."""
    solved, refused, gaps = [], [], []
    for seed in range(PROGRAMMES):
        damages, limits = programme(seed)
        began = time.process_time()
        found = solve(damages, limits)
        solved.append(time.process_time() - began)
        assert isinstance(found, Solution)
        gaps.append(found.gap)
        least = 0.9 * sum(min(row) for row in limits[0].uses)
        began = time.process_time()
        assert isinstance(solve(damages, [Limit("0", limits[0].uses, least), *limits[1:]]), Infeasible)
        refused.append(time.process_time() - began)
    return [
        ["feasible", str(PROGRAMMES), f"{max(solved):.2f}", f"{100 * max(gaps):.4f}"],
        [
            "infeasible, with how far each budget would have to give way",
            str(PROGRAMMES),
            f"{max(refused):.2f}",
            "–",
        ],
    ]


def fit_row(path: Path) -> list[str]:
    """A delivered artifact."""
    found = read_json(path / "fit.json")
    first, chosen = found["trials"][0], found["trials"][found["chosen"] - 1]
    return [
        f"fit, {', '.join(found['budgets'])} ({chosen['method']}, trial {found['chosen']})",
        f"{found['measured']['disk'] / 1e6:.1f}",
        f"{chosen['predicted']['disk'] / 1e6:.1f}",
        f"{first['predicted']['KL']:.3f}",
        f"{found['measured']['KL']:.3f}",
        f"{found['held_out']['KL']:.3f}",
    ]


def recipe_row(path: Path) -> list[str]:
    """What a recipe gave, on the held-out text."""
    line = records.read([path])[-1]
    value: Any = line.metrics["kl"].value
    return [path.stem, f"{line.subject.disk_bytes / 1e6:.1f}", "–", "–", "–", f"{value:.3f}"]


def write_page(work: Path, results: Path) -> None:
    """Both tables."""
    page = results / "fit.md"
    rows = [fit_row(file.parent) for file in sorted(work.glob("*/fit.json"))]
    rows += [recipe_row(file) for file in sorted(work.glob("recipes/*.jsonl"))]
    write_table(
        page,
        "SmolLM2-135M within disk budgets",
        COMMAND,
        ["artifact", "MB", "MB, predicted", "KL, first prediction", "KL, development", "KL, held out"],
        sorted(rows, key=lambda row: float(row[1])),
        [
            "KL(original ‖ bundle) in nats a token, 16 windows of 512 tokens, of half of the articles that "
            "`validate --text wikipedia` uses each. Development text decides between trials; held-out text "
            "was read once, for the result.",
            "The first prediction is of rounding to nearest, before any trial; GPTQ stays below it.",
            "fit: `edgepress fit smollm2 --max-disk 60MB --text wikipedia --samples 16 --hours 0.05`; "
            "recipes: `edgepress compress smollm2 -r NAME --text wikipedia --samples 16`, `export`, and "
            "`validate` with `--text` the same held-out articles.",
        ],
        page=PAGE,
    )
    write_table(
        page,
        f"The solver: {UNITS} units, {OPTIONS} options, {LIMITS} budgets",
        COMMAND,
        ["programmes", "n", "slowest, CPU s", "widest gap, %"],
        solver_rows(),
        ["Random programmes, one thread. Targets: below 10 s, gap below 1 %."],
        page=PAGE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    given = parser.parse_args()
    write_page(given.work, given.results)


if __name__ == "__main__":
    main()
