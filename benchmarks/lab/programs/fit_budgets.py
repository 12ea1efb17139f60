"""What ``fit`` delivers, beside recipes on the same held-out text; and how long its solver takes.

    python -m edgepress.benchmarks.lab.programs.fit_budgets WORK [RESULTS] [--texts TITLE]

Each directory of WORK that holds a ``fit.json`` is a row, and so is each bundle that a ``recipes/NAME.jsonl``
of WORK is about, which ``edgepress validate --record`` wrote; ``sizes.json`` has the bytes of those whose
files are not what would be shipped. With ``--texts`` the rows are encoders or classifiers: predicted,
measured, and on text that the search did not see.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....files.storage import read_json
from ....fit.quantities import quantity_of
from ....fit.solve import Infeasible, Limit, Solution, solve
from ...records import record as records
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.fit_budgets WORK"
PAGE = "Budgets"
UNITS, OPTIONS, LIMITS, PROGRAMMES = 300, 12, 4, 15


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


@dataclass(frozen=True)
class Artifact:
    """A row: its bytes, those ``predicted`` before the trial, those allowed (``bound``), and its KL on the
    held-out text in nats a token, None of what an interrupt left.
    """

    name: str
    size: float
    damage: float | None
    predicted: float | None = None
    bound: float | None = None

    def row(self, others: Sequence[Artifact]) -> list[str]:
        """With the KL as a share of that of the best of ``others`` within the bound."""
        within = [one.damage for one in others if self.bound and one.damage and one.size <= self.bound]
        share = f"{self.damage / min(within):.2f}" if within and self.damage is not None else "–"
        predicted = "–" if self.predicted is None else f"{self.predicted / 1e6:.1f}"
        damage = "–" if self.damage is None else f"{self.damage:.4f}"
        return [self.name, f"{self.size / 1e6:.1f}", predicted, damage, share]


def fitted(path: Path) -> Artifact:
    """What was delivered into ``path``."""
    found = read_json(path / "fit.json")
    chosen = found["trials"][found["chosen"] - 1]
    name = f"fit, {', '.join(found['budgets'])} ({chosen['method']}, trial {found['chosen']})"
    (bound,) = (float(one.split()[2]) * 1e6 for one in found["budgets"])
    size, predicted = found["measured"]["disk"], chosen["predicted"]["disk"]
    return Artifact(name, size, found["held_out"].get("KL"), predicted, bound)


def other(path: Path, sizes: dict[str, float]) -> Artifact:
    """The last line of a run file, by its name; ``sizes``: bytes of those whose files are of another form."""
    line = records.read([path])[-1]
    return Artifact(path.stem, sizes.get(path.stem, line.subject.disk_bytes), line.metrics["kl"].value)


def write_page(work: Path, results: Path) -> None:
    """Both tables; that of artifacts where there are some."""
    page, kept = results / "fit.md", work / "sizes.json"
    sizes = read_json(kept) if kept.exists() else {}
    found = [fitted(file.parent) for file in sorted(work.glob("*/fit.json"))]
    others = [other(file, sizes) for file in sorted(work.glob("recipes/*.jsonl"))]
    if found or others:
        write_table(
            page,
            "SmolLM2-135M within disk budgets",
            COMMAND,
            ["artifact", "MB", "MB, predicted", "KL", "KL × best other within the budget"],
            [one.row(others) for one in sorted([*found, *others], key=lambda one: one.size)],
            [
                "KL(original ‖ artifact) in nats a token, 16 windows of 512 tokens, of half of the articles "
                "that `validate --text wikipedia` uses, which no search had seen.",
                "fit: `edgepress fit smollm2 --max-disk 60MB --text wikipedia --samples 32 --threads 1 "
                "-o WORK/NAME`.",
            ],
            page=PAGE,
        )
    write_table(
        page,
        f"The solver: {UNITS} units, {OPTIONS} options, {LIMITS} budgets",
        COMMAND,
        ["programmes", "n", "slowest, CPU s", "widest gap, %"],
        solver_rows(),
        ["Random programmes, one thread; all were answered rightly. Targets: below 10 s, gap below 1 %."],
        page=PAGE,
    )


def shown(name: str, value: float | None) -> str:
    """A figure of a report in words; ``name`` is its key."""
    return "–" if value is None else quantity_of(name).shown(value)


def texts_row(found: dict[str, Any], names: list[str]) -> list[str]:
    """A delivered artifact: of each figure what was predicted, measured, and found on the held-out text."""
    chosen = found["trials"][found["chosen"] - 1]
    parts = [chosen["predicted"], found["measured"], found["held_out"]]
    cells = [
        " / ".join(shown(name, part.get(name)) for part in parts[: 3 if name in found["held_out"] else 2])
        for name in names
    ]
    done = f"{chosen['method']}, {found['chosen']} of {len(found['trials'])}"
    seconds = sum(trial["seconds"] for trial in found["trials"])
    return [", ".join(found["budgets"]), done, *cells, f"{seconds / 60:.0f}"]


def write_texts(work: Path, title: str, results: Path) -> None:
    """The table of encoders or classifiers in ``work``."""
    reports = [read_json(file) for file in sorted(work.glob("*/fit.json"))]
    reports.sort(key=lambda one: float(one["measured"]["disk"]))
    names = list(dict.fromkeys(name for one in reports for name in (*one["measured"], *one["held_out"])))
    write_table(
        results / "fit.md",
        title,
        f'{COMMAND} --texts "{title}"',
        ["budgets", "delivered: method, trial", *names, "minutes"],
        [texts_row(one, names) for one in reports],
        [
            "Of each figure: predicted before the trial / measured on the text by which was searched / on "
            "text that the search did not see; bytes and rates are predicted / measured.",
            "Minutes: of all trials, on a machine that others used.",
        ],
        page=PAGE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--texts", metavar="TITLE", help="of the table of encoders or classifiers in WORK")
    given = parser.parse_args()
    if given.texts is not None:
        write_texts(given.work, given.texts, given.results)
    else:
        write_page(given.work, given.results)


if __name__ == "__main__":
    main()
