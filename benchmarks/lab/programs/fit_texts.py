"""What ``fit`` delivers of an encoder or a classifier: predicted, measured, and on text that it did not see.

    python -m edgepress.benchmarks.lab.programs.fit_texts WORK TITLE [RESULTS]

Each directory of WORK that holds a ``fit.json`` is a row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ....fit.quantities import quantity_of
from ....storage import read_json
from ..study.page import write_table
from .fit_budgets import PAGE

COMMAND = "python -m edgepress.benchmarks.lab.programs.fit_texts WORK TITLE"


def shown(name: str, value: float | None) -> str:
    """A figure of a report in words; ``name`` is its key."""
    return "–" if value is None else quantity_of(name).shown(value)


def row(found: dict[str, Any], names: list[str]) -> list[str]:
    """A delivered artifact: of each figure what was predicted, measured, and found on the held-out text."""
    chosen = found["trials"][found["chosen"] - 1]
    parts = [chosen["predicted"], found["measured"], found["held_out"]]
    cells = [
        " / ".join(shown(name, part.get(name)) for part in parts[: 2 if name.startswith("disk") else 3])
        for name in names
    ]
    done = f"{chosen['method']}, {found['chosen']} of {len(found['trials'])}"
    seconds = sum(trial["seconds"] for trial in found["trials"])
    return [", ".join(found["budgets"]), done, *cells, f"{seconds / 60:.0f}"]


def write_page(work: Path, title: str, results: Path) -> None:
    """The table of what is in ``work``."""
    reports = [read_json(file) for file in sorted(work.glob("*/fit.json"))]
    reports.sort(key=lambda one: float(one["measured"]["disk"]))
    names = ["disk", *dict.fromkeys(name for one in reports for name in one["held_out"])]
    write_table(
        results / "fit.md",
        title,
        COMMAND,
        ["budgets", "delivered: method, trial", *names, "minutes"],
        [row(one, names) for one in reports],
        [
            "Of each figure: predicted before the trial / measured on the text by which was searched / on "
            "text that the search did not see; bytes are predicted / measured.",
            "Minutes: of all trials, on a machine that others used.",
        ],
        page=PAGE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("work", type=Path)
    parser.add_argument("title")
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    given = parser.parse_args()
    write_page(given.work, given.title, given.results)


if __name__ == "__main__":
    main()
