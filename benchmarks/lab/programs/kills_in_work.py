"""Ten SIGKILLs in the middle of one kind of work, the same call again after each, and every byte compared.

    python -m edgepress.benchmarks.lab.programs.kills_in_work [benchmarks/lab/results] [--work DIRECTORY]

A small random Llama goes through a backward sweep (``allocate``), learning (``tune``) and the proof of an
export, once undisturbed and once killed. A process counts the steps of that work as its progress reports them
and ends itself by SIGKILL in the middle of a random one; the next process goes on from what it left.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ....compress.api import compress_model
from ....export.api import export_bundle
from ....files.hashed_tree import hash_tree
from ....terminal.progress import Progress, ProgressTask
from ..study.child import run_module
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.kills_in_work"
SHAPE = ("--hidden", "256", "--ffn", "704", "--blocks", "8")
KILLS = 10
_ROUNDED = "{pass: rtn, scheme: W4A16-g64}"
_ALLOCATED = "{pass: allocate, bits: 3.5, using: {pass: rtn}}"
_LEARNING = "tokens: 4096, batch_tokens: 128, micro_batch_tokens: 128, measurements: 16"
# The text of a backward sweep and of what learns: samples and tokens of each.
TEXT = (8, 128)


@dataclass(frozen=True)
class Case:
    """A kind of work: the passes of a recipe, none for an export; how its progress is called; and whether a
    killed run goes on where it was.
    """

    passes: str
    label: str
    resumes: bool


CASES = {
    "backward sweep": Case(
        "[{pass: allocate, bits: 3.5, using: {pass: rtn}}]", "measuring for allocate", True
    ),
    "tune": Case(f"[{_ROUNDED}, {{pass: tune, training: {{{_LEARNING}}}}}]", "learning", True),
    "proof": Case("", "proving the graph", False),
}


class Killing:
    """A progress that counts the steps of the work ``label``, and ends this process within the step ``last``;
    0 never does.
    """

    def __init__(self, label: str, last: int, delay: float) -> None:
        self.label, self.last, self.delay, self.steps = label, last, delay, 0

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        """Counts where it is the work that is meant."""
        yield _Step(self if label == self.label else None)

    def note(self, text: str) -> None:
        """Nobody reads it."""

    def count(self) -> None:
        """A step is done."""
        self.steps += 1
        if self.steps == self.last:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


class _Step:
    def __init__(self, counts: Killing | None) -> None:
        self.counts = counts

    def advance(self, amount: float = 1, detail: str = "") -> None:
        if self.counts is not None:
            self.counts.count()


def work_on(case: Case, work: Path, output: Path, progress: Progress) -> None:
    """The call that is killed."""
    if not case.passes:
        export_bundle(work / "rounded", output=output, progress=progress)
        return
    recipe = work / "recipe.yaml"
    recipe.write_text(f"passes: {case.passes}\n", encoding="utf-8")
    samples, length = TEXT
    compress_model(
        str(work / "model"),
        recipe=str(recipe),
        output=output,
        calibration="wikipedia",
        samples=samples,
        length=length,
        progress=progress,
    )


def _child(name: str, work: Path, output: Path, progress: Killing, steps: Connection) -> None:
    """What a process of its own does."""
    torch.set_num_threads(1)
    work_on(CASES[name], work, output, progress)
    steps.send(progress.steps)


def run(name: str, work: Path, output: Path, last: int = 0, delay: float = 0.0) -> int | None:
    """Run a case in a process of its own; returns how many steps it took, None where it was killed."""
    processes = get_context("forkserver")
    processes.set_forkserver_preload([COMMAND.split()[-1]])  # imports once, not for every kill
    receiver, sender = processes.Pipe(duplex=False)
    progress = Killing(CASES[name].label, last, delay)
    child = processes.Process(target=_child, args=(name, work, output, progress, sender))
    child.start()
    child.join()
    if child.exitcode == -signal.SIGKILL:
        return None
    if child.exitcode:
        raise SystemExit(f"exit code {child.exitcode} of {name}")
    return int(receiver.recv())


def kills_of(name: str, work: Path, generator: random.Random) -> list[str]:
    """A line of the table: where it was killed, and what came of it."""
    whole, output = work / name / "whole" / "out", work / name / "killed" / "out"
    steps = run(name, work, whole) or 0
    # Of work that goes on, a part each time, so that the kills reach its end; else anywhere in it.
    most = max(2, steps // (KILLS - 3)) if CASES[name].resumes else max(2, steps - 4)
    kills: list[int] = []
    while len(kills) < KILLS:
        kills.append(generator.randint(1, most))
        if run(name, work, output, kills[-1], generator.uniform(0, 0.05)) is not None:
            raise SystemExit(f"{name} came to its end before {KILLS} kills")
    left = run(name, work, output) or 0
    leftovers = sorted(path.name for path in output.parent.iterdir() if path != output)
    identical = "yes" if hash_tree(output) == hash_tree(whole) else "no"
    where = ", ".join(map(str, kills))
    return [name, str(steps), where, str(left), identical, ", ".join(leftovers) or "none"]


def measure(work: Path, names: Sequence[str], seed: int) -> list[list[str]]:
    """The rows of the table."""
    run_module("edgepress.benchmarks.lab.makers.random_llama", [str(work / "model"), *SHAPE])
    compress_model(str(work / "model"), scheme="W4A16", group_size=64, output=work / "rounded")
    rows = []
    for name in names:
        for folder in ("whole", "killed"):
            (work / name / folder).mkdir(parents=True)
        rows.append(kills_of(name, work, random.Random(seed)))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _write(results: Path, cases: str, rows: Sequence[Sequence[str]], seed: int) -> None:
    """The section of the page of kills."""
    write_table(
        results / "kills.md",
        "Kills in a backward sweep, in learning and in a proof",
        f"{COMMAND} --cases '{cases}'",
        [
            "work",
            "steps of it undisturbed",
            "killed in step",
            "steps of the last run",
            "identical",
            "leftovers",
        ],
        rows,
        [
            f"{KILLS} kills by SIGKILL one after another, each within the step that is named, counted from "
            "the start of its own process; then the same call to its end. Identical: SHA-256 of every file.",
            f"Model: Llama, random weights, {' '.join(SHAPE)}, bfloat16; {TEXT[0]} × {TEXT[1]} tokens of "
            f"Wikipedia. Backward sweep: passes `{CASES['backward sweep'].passes}`; tune: "
            f"`{CASES['tune'].passes}`; proof: `edgepress export` of the model rounded to W4A16-g64.",
            f"Seed: {seed}.",
        ],
        page="Kills during a compression",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES), help="names, with commas between them")
    arguments = parser.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-kill-") as work:
        rows = measure(Path(work), arguments.cases.split(","), arguments.seed)
    _write(arguments.results, arguments.cases, rows, arguments.seed)
    sys.exit(0 if all(row[4:] == ["yes", "none"] for row in rows) else 1)


if __name__ == "__main__":
    main()
