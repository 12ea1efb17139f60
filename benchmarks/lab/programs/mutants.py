"""Critical lines changed one by one: does a test notice?

    python -m edgepress.benchmarks.lab.programs.mutants [RESULTS] [--only NAME]…

``mutants.yaml`` names them: the file, a line and what becomes of it, and the tests of the ordinary suite that
must notice. They run in a copy of the tree, unchanged first, then once for each mutant. A line that is no
longer there, or is there twice, ends the program before any test runs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....files.yaml_safe import load_yaml
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.mutants"
ROOT = Path(__file__).parents[3]
TABLE = Path(__file__).with_suffix(".yaml")
LEFT_OUT = shutil.ignore_patterns(".*", "build", "runs", "dist", "__pycache__", "*.egg-info")
SECONDS = 300.0
FAILED = 1  # pytest's exit code when a test failed
_FIRST = re.compile(r"^(?:FAILED|ERROR) (\S+)", flags=re.M)


@dataclass(frozen=True)
class Mutant:
    """``before`` becomes ``after`` in ``file``; one of ``tests`` (files or names, as pytest takes them) must
    fail. ``idea`` is the kind of line it is.
    """

    name: str
    idea: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def mutants(table: Path = TABLE, root: Path = ROOT) -> list[Mutant]:
    """Those of the table."""
    found = [
        Mutant(**{**entry, "tests": tuple(entry["tests"].split())})
        for entry in load_yaml(table.read_text(encoding="utf-8"), source=table.name)
    ]
    stale = [f"{one.name}: {problem}" for one in found for problem in _problems(one, root)]
    if stale:
        raise SystemExit("\n".join(["these mutants do not fit the sources any more:", *stale]))
    return found


def _problems(mutant: Mutant, root: Path) -> list[str]:
    path = root / mutant.file
    count = path.read_text(encoding="utf-8").count(mutant.before) if path.is_file() else 0
    problems = [] if count == 1 else [f"{mutant.file} has this {count} times: {mutant.before!r}"]
    files = {test.partition("::")[0] for test in mutant.tests}
    return problems + [f"there is no {file}" for file in sorted(files) if not (root / file).exists()]


def run_tests(tree: Path, tests: list[str], seconds: float = SECONDS) -> tuple[int, str]:
    """pytest's exit code, and the first test that failed. What does not end is killed: a failure too."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, "a test that did not end"
    first = _FIRST.search(done.stdout)
    return done.returncode, first.group(1) if first else done.stdout[-500:]


def try_mutant(tree: Path, mutant: Mutant) -> str:
    """The test that noticed ``mutant`` in the copy ``tree``; empty when none did."""
    path = tree / mutant.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        code, first = run_tests(tree, list(mutant.tests))
    finally:
        path.write_text(whole, encoding="utf-8")
    if code not in (0, FAILED):
        raise SystemExit(f"{mutant.name}: the tests could not run (exit code {code}): {first}")
    return first if code else ""


def measure(chosen: list[Mutant]) -> list[list[str]]:
    """A row for each mutant."""
    with tempfile.TemporaryDirectory(prefix="edgepress-mutants-") as scratch:
        tree = Path(scratch) / "edgepress"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT, symlinks=True)
        tests = sorted({test for one in chosen for test in one.tests})
        code, first = run_tests(tree, tests, SECONDS * len(chosen))
        if code:
            raise SystemExit(f"exit code {code} without any mutant: {first}")
        rows = []
        for one in chosen:
            killer = try_mutant(tree, one)
            change = f"`{_shown(one.before)}` → `{_shown(one.after)}`"
            rows.append([one.name, one.idea, one.file, change, f"`{killer}`" if killer else "**lived**"])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _shown(code: str) -> str:
    line: str = " ".join(code.split()).replace("|", "\\|")
    return line or " "


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--only", action="append", help="the name of a mutant; writes no page")
    arguments = parser.parse_args()
    every: list[Any] = mutants()
    rows = measure([one for one in every if not arguments.only or one.name in arguments.only])
    killed = sum(row[-1] != "**lived**" for row in rows)
    if not arguments.only:
        write_table(
            arguments.results / "mutants.md",
            "Mutants of critical lines",
            COMMAND,
            ["mutant", "idea", "file", "change", "killed by"],
            rows,
            [f"{killed} of {len(rows)} are killed by the suite."],
        )
    print(f"{killed} of {len(rows)} killed", file=sys.stderr)
    sys.exit(0 if killed == len(rows) else 1)


if __name__ == "__main__":
    main()
