"""Kill a compression with SIGKILL at random moments, run the same command again, and compare every byte.

    python -m edgepress.benchmarks.lab.programs.kill_test [benchmarks/lab/results] [--work DIRECTORY]

A small random Llama is compressed with GPTQ once without harm, and it is noted when the sweep and the
assembling of the result begin. The kills are spread over three spans: the whole wall time, interpreter and
imports included; the time from the sweep on; and the assembling, which is short and would hardly be hit
otherwise. Every run ends in the same command, undisturbed.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....files.hashed_tree import hash_tree
from ....files.storage import read_json
from ....runtime.bundle.verification import verify_directory
from ..study.child import run_module
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.kill_test"
SHAPE = ("--hidden", "256", "--ffn", "704", "--blocks", "8")
OPTIONS = (
    *("--scheme", "W4A16", "--group-size", "64"),
    *("--calibration", "wikipedia", "--samples", "16", "--length", "256", "--quiet"),
)
BLOCKS = 8
# How many runs are first killed within each span. A span begins when this part of the staging directory
# appears, the first one with the process.
SPANS = {"": 8, "work": 8, "result": 4}
# Every fourth run is killed three times before it may finish.
SEVERAL_EVERY, SEVERAL = 4, 3
EXISTS = 2  # exit code of a command whose output is already there


@dataclass(frozen=True)
class Moment:
    """When to kill: ``seconds`` after ``part`` of the staging directory appeared (after the start when
    empty).
    """

    part: str
    seconds: float


@dataclass(frozen=True)
class Kill:
    """One SIGKILL that hit: seconds after the start, journalled blocks, and the work that it interrupted."""

    seconds: float
    blocks: int
    state: str


class Victim:
    """One compression command, and the directory it writes."""

    def __init__(self, model: Path, output: Path, whole: dict[str, Any]) -> None:
        self.output, self.whole = output, whole
        self.staging = output.with_name(f".{output.name}.partial")
        self.command = [sys.executable, "-m", "edgepress", "compress", str(model)]
        self.command += [*OPTIONS, "-o", str(output)]

    def kill_at(self, moment: Moment) -> Kill | None:
        """Start the command and end it by SIGKILL at ``moment``; None when it had ended by itself."""
        wanted, started = self._wanted(), time.monotonic()
        with subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            begun = started
            if moment.part:
                begun = wait_for(child, [self.staging / moment.part])[0]
            try:
                child.wait(max(0.0, begun + moment.seconds - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
            seconds = time.monotonic() - started
        self.check_whole_or_absent()
        if child.returncode == wanted:
            return None
        if child.returncode != -signal.SIGKILL:
            raise SystemExit(f"exit code {child.returncode} from: {' '.join(self.command)}")
        return self._scene(seconds)

    def _wanted(self) -> int:
        """The exit code of the command when nothing disturbs it."""
        return EXISTS if self.output.exists() else 0

    def _scene(self, seconds: float) -> Kill:
        """What stands on disk after a kill."""
        if self.output.exists():
            return Kill(seconds, BLOCKS, "after publication")
        work = self.staging / "work"
        if not (work / "journal.json").exists():
            return Kill(seconds, 0, "block 1" if work.exists() else "start")
        blocks = sum(len(read_json(journal)["units"]) for journal in work.glob("stage-*/journal.json"))
        if (self.staging / "result").exists():
            return Kill(seconds, blocks, "assembling")
        return Kill(seconds, blocks, f"block {blocks + 1}" if blocks < BLOCKS else "outer tensors")

    def check_whole_or_absent(self) -> None:
        """An output that is there is the whole one, and ``verify`` takes nothing less."""
        if self.output.exists():
            try:
                accepted = not verify_directory(self.output).problems
            except InputError:
                accepted = False
            if not accepted or hash_tree(self.output) != self.whole:
                raise SystemExit(f"{self.output} was published incomplete (verify accepts it: {accepted})")

    def finish(self) -> None:
        """The same command undisturbed; where a kill came after publication, it must refuse to work again."""
        wanted = self._wanted()
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode != wanted:
            raise SystemExit(f"exit code {done.returncode}, not {wanted}: {done.stderr}")
        self.check_whole_or_absent()


def wait_for(child: subprocess.Popen[bytes], paths: list[Path]) -> list[float]:
    """The moment at which each of ``paths`` was first seen, or at which the child ended."""
    seen: dict[Path, float] = {}
    while child.poll() is None and len(seen) < len(paths):
        seen |= {path: time.monotonic() for path in paths if path not in seen and path.exists()}
        time.sleep(0.002)
    return [seen.get(path, time.monotonic()) for path in paths]


def undisturbed(victim: Victim) -> dict[str, float]:
    """Run the command to its end; seconds of each span. The first ends with the process, others before it."""
    parts = [part for part in SPANS if part]
    started = time.monotonic()
    with subprocess.Popen(victim.command, stdout=subprocess.DEVNULL) as child:
        *begun, published = wait_for(child, [*(victim.staging / part for part in parts), victim.output])
        if child.wait():
            raise SystemExit(f"exit code {child.returncode} from: {' '.join(victim.command)}")
    whole = time.monotonic() - started
    return {"": whole, **{part: published - moment for part, moment in zip(parts, begun, strict=True)}}


def kill_moments(spans: dict[str, float], seed: int) -> list[list[Moment]]:
    """For each run its kills. The first ones spread evenly, one random moment in each equal part of a span;
    those that follow come anywhere in the whole wall time.
    """
    generator = random.Random(seed)
    first = [
        Moment(part, (interval + generator.random()) * spans[part] / runs)
        for part, runs in SPANS.items()
        for interval in range(runs)
    ]
    generator.shuffle(first)
    return [
        [moment, *(Moment("", generator.uniform(0, spans[""])) for _ in range(SEVERAL - 1 if several else 0))]
        for moment, several in ((moment, run % SEVERAL_EVERY == 3) for run, moment in enumerate(first))
    ]


def torture(victim: Victim, moments: list[Moment]) -> list[Kill]:
    """Kill a run at its moments, then let it end. A first kill that came too late is tried again, sooner."""
    first, *later = moments
    kill = victim.kill_at(first)
    while kill is None:
        shutil.rmtree(victim.output)
        first = Moment(first.part, 0.7 * first.seconds)
        kill = victim.kill_at(first)
    kills = [kill, *(victim.kill_at(moment) for moment in later)]
    victim.finish()
    return [kill for kill in kills if kill is not None]


def row_of(number: int, victim: Victim, kills: list[Kill]) -> list[str]:
    """A line of the table: the kills, and what they left."""
    leftovers = sorted(path.name for path in victim.output.parent.iterdir() if path != victim.output)
    return [
        str(number),
        ", ".join(f"{kill.seconds:.2f}" for kill in kills),
        ", ".join(str(kill.blocks) for kill in kills),
        ", ".join(kill.state for kill in kills),
        "yes" if hash_tree(victim.output) == victim.whole else "no",
        ", ".join(leftovers) or "none",
    ]


def measure(work: Path, seed: int) -> tuple[list[list[str]], dict[str, float]]:
    """The rows of the table, and the spans of an undisturbed run."""
    model = work / "model"
    run_module("edgepress.benchmarks.lab.makers.random_llama", [str(model), *SHAPE])
    for name in ("warm-up", "whole"):  # the first run reads everything into the page cache
        (work / name).mkdir()
        spans = undisturbed(Victim(model, work / name / "out", {}))
    whole = hash_tree(work / "whole" / "out")
    rows = []
    for number, moments in enumerate(kill_moments(spans, seed), 1):
        folder = work / f"run-{number}"
        folder.mkdir()
        victim = Victim(model, folder / "out", whole)
        rows.append(row_of(number, victim, torture(victim, moments)))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows, spans


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--work", type=Path, help="parent of the scratch directory")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="edgepress-kill-") as work:
        rows, spans = measure(Path(work), arguments.seed)
    good = [row for row in rows if row[4] == "yes" and row[5] == "none"]
    kills = sum(row[1].count(",") + 1 for row in rows)
    write_table(
        arguments.results / "kills.md",
        "Kills during a compression",
        COMMAND,
        ["run", "killed after s", "blocks finished at the kill", "during", "identical", "leftovers"],
        rows,
        [
            f"{len(good)} of {len(rows)} runs byte-identical (SHA-256 of every file) with no files "
            f"left over, after {kills} kills; no incomplete output was ever visible.",
            f"Model: Llama, random weights, {' '.join(SHAPE)}, bfloat16. Options: `{' '.join(OPTIONS)}`.",
            f"Without kills: {spans['']:.1f} s of wall time, {spans['work']:.1f} s of it from the start of "
            f"the sweep to publication, {spans['result']:.2f} s of that for assembling. "
            f"Seed: {arguments.seed}.",
        ],
    )
    sys.exit(0 if len(good) == len(rows) else 1)


if __name__ == "__main__":
    main()
