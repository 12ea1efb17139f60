"""Kill a compression with SIGKILL at random moments, run the same command again, and compare every byte.

    python -m edgepress.benchmarks.checks.kill_test [benchmarks/results] [--work DIRECTORY]

A small random Llama is compressed with GPTQ once without harm: its wall time, interpreter and imports
included, is the span that the kills are spread over. Every run ends in the same command, undisturbed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...runtime.bundle import verify_directory
from ...storage import hash_tree, read_json
from .child import run_module
from .table import write_table

COMMAND = "python -m edgepress.benchmarks.checks.kill_test"
SHAPE = ("--hidden", "256", "--ffn", "704", "--blocks", "8")
OPTIONS = (
    *("--scheme", "W4A16", "--group-size", "64"),
    *("--calibration", "wikipedia", "--samples", "16", "--length", "256", "--quiet"),
)
RUNS = 20
BLOCKS = 8
# Every fourth run is killed three times before it may finish.
SEVERAL_EVERY, SEVERAL = 4, 3
EXISTS = 2  # exit code of a command whose output is already there


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: when it came, in seconds after the start, and what stood on disk then.

    ``blocks`` is the number of journalled blocks; ``state`` names the work that was interrupted.
    """

    seconds: float
    blocks: int
    state: str


class Victim:
    """One compression command, and the directory it writes."""

    def __init__(self, model: Path, output: Path, whole: dict[str, Any]) -> None:
        self.output, self.whole = output, whole
        self.arguments = ["compress", str(model), *OPTIONS, "-o", str(output)]

    def kill_after(self, seconds: float) -> Kill:
        """Start the command and end it by SIGKILL after ``seconds``, unless it is done by then."""
        command = [sys.executable, "-m", "edgepress", *self.arguments]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            try:
                code = child.wait(seconds)
                if code not in (0, EXISTS):
                    raise SystemExit(f"exit code {code} from: {' '.join(command)}")
            except subprocess.TimeoutExpired:
                child.kill()
        return self._scene(seconds)

    def _scene(self, seconds: float) -> Kill:
        self.check_whole_or_absent()
        staging = self.output.with_name(f".{self.output.name}.partial")
        journal = staging / "work" / "journal.json"
        if self.output.exists():
            return Kill(seconds, BLOCKS, "published")
        if not journal.exists():
            return Kill(seconds, 0, "first block" if (staging / "work").exists() else "start")
        blocks = len(read_json(journal)["units"])
        state = "assembling" if (staging / "result").exists() else f"block {blocks + 1}"
        return Kill(seconds, blocks, "outer tensors" if state == f"block {BLOCKS + 1}" else state)

    def check_whole_or_absent(self) -> None:
        """An output that is there is the whole one, and ``verify`` takes nothing less.

        Raises:
            SystemExit: it is not.
        """
        if self.output.exists():
            try:
                accepted = not verify_directory(self.output).problems
            except InputError:
                accepted = False
            if not accepted or hash_tree(self.output) != self.whole:
                raise SystemExit(f"{self.output} was published incomplete (verify accepts it: {accepted})")

    def finish(self) -> None:
        """The same command undisturbed; where a kill came after publication, it must refuse to work again."""
        command = [sys.executable, "-m", "edgepress", *self.arguments]
        wanted = EXISTS if self.output.exists() else 0
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != wanted:
            raise SystemExit(f"exit code {done.returncode}, not {wanted}: {done.stderr}")
        self.check_whole_or_absent()


def kill_times(wall: float, runs: int, seed: int) -> list[list[float]]:
    """For each run the moments of its kills: the first ones spread evenly over ``wall``, one random moment
    in each of ``runs`` equal parts, in random order.
    """
    generator = random.Random(seed)
    first = [(part + generator.random()) * wall / runs for part in range(runs)]
    generator.shuffle(first)
    return [
        [moment, *(generator.uniform(0, wall) for _ in range(SEVERAL - 1 if run % SEVERAL_EVERY == 3 else 0))]
        for run, moment in enumerate(first)
    ]


def torture(number: int, model: Path, moments: list[float], folder: Path, whole: dict[str, Any]) -> list[str]:
    """One run of the table: its kills, its end, and what they left behind."""
    folder.mkdir()
    victim = Victim(model, folder / "out", whole)
    kills = [victim.kill_after(moment) for moment in moments]
    victim.finish()
    leftovers = sorted(path.name for path in folder.iterdir() if path != victim.output)
    return [
        str(number),
        ", ".join(f"{kill.seconds:.2f}" for kill in kills),
        ", ".join(str(kill.blocks) for kill in kills),
        ", ".join(kill.state for kill in kills),
        "yes" if hash_tree(victim.output) == whole else "no",
        ", ".join(leftovers) or "none",
    ]


def measure(work: Path, seed: int) -> tuple[list[list[str]], float]:
    """The rows of the table, and the wall seconds of an undisturbed run."""
    model = work / "model"
    run_module("edgepress.benchmarks.checks.random_llama", [str(model), *SHAPE])
    reference = work / "whole" / "out"
    command = ["compress", str(model), *OPTIONS, "-o"]
    run_module("edgepress", [*command, str(work / "warm-up" / "out")])  # reads everything into the page cache
    started = time.monotonic()
    run_module("edgepress", [*command, str(reference)])
    wall = time.monotonic() - started
    whole = hash_tree(reference)
    rows = []
    for number, moments in enumerate(kill_times(wall, RUNS, seed), 1):
        rows.append(torture(number, model, moments, work / f"run-{number}", whole))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows, wall


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-kill-") as work:
        rows, wall = measure(Path(work), arguments.seed)
    good = [row for row in rows if row[4] == "yes" and row[5] == "none"]
    kills = sum(row[1].count(",") + 1 for row in rows)
    write_table(
        arguments.results / "kill-test.md",
        "Kills during a compression",
        COMMAND,
        ["run", "killed after s", "blocks finished at the kill", "during", "identical", "leftovers"],
        rows,
        [
            f"{len(good)} of {len(rows)} runs byte-identical (SHA-256 of every file) with nothing left "
            f"beside them, after {kills} kills; no output was ever seen that was not whole.",
            f"Model: Llama, random weights, {' '.join(SHAPE)}, bfloat16. Options: `{' '.join(OPTIONS)}`.",
            f"Undisturbed: {wall:.1f} s of wall time, interpreter and imports included. "
            f"Seed of the kills: {arguments.seed}.",
        ],
    )
    sys.exit(0 if len(good) == len(rows) else 1)


if __name__ == "__main__":
    main()
