"""Where a start goes: from the process to the first token, step by step, with either set of operators.

    python -m edgepress.benchmarks.lab.programs.startup [RESULTS] [--work DIRECTORY] [--models NAME…]

SmolLM2-135M and a random-weight Llama of 0.9 billion, both at 4 bits, are made below the work directory if
they are not there. Steps are CPU time, taken one after another in a process of their own; the whole command
is what a user types, where hashing, session and tokenizer run side by side.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..study.page import write_table
from .startup_child import STEPS

COMMAND = "python -m edgepress.benchmarks.lab.programs.startup"
PROMPT_TOKENS = 128
SHAPE = ("--hidden", "2048", "--ffn", "5632", "--blocks", "18")
MODELS = {"SmolLM2-135M": "64", "Llama 0.9 B": "128"}
OPERATORS = ("edgepress", "standard")
_WORD = "river "


@dataclass
class Samples:
    """What the rounds of one arm gave: numbers by row of the table."""

    numbers: dict[str, list[float]] = field(default_factory=dict)

    def add(self, row: str, value: float) -> None:
        """One more number of ``row``."""
        self.numbers.setdefault(row, []).append(value)

    def best(self, row: str) -> str:
        """The least and the median, for the table."""
        found = self.numbers.get(row)
        return f"{min(found):.0f} ({statistics.median(found):.0f})" if found else "–"


def bundles(work: Path, models: Sequence[str] = tuple(MODELS)) -> dict[str, dict[str, Path]]:
    """The bundles of ``models`` by name and by operators, made where they are not there yet."""
    found: dict[str, dict[str, Path]] = {}
    for index, (name, group) in enumerate(MODELS.items()):
        if name not in models:
            continue
        checkpoint, source = (work / f"{kind}{index}" for kind in ("checkpoint", "model"))
        found[name] = {operators: work / f"{operators}{index}" for operators in OPERATORS}
        missing = {operators: path for operators, path in found[name].items() if not path.is_dir()}
        if not missing:
            continue
        if index:
            _module("edgepress.benchmarks.lab.makers.random_llama", str(source), *SHAPE)
        scheme = ("--scheme", "W4A16", "--group-size", group)
        _edgepress("compress", str(source) if index else "smollm2", *scheme, "-o", str(checkpoint), "-q")
        for operators, path in missing.items():
            options = ("--for", operators, "--no-validate", "-q")
            _edgepress("export", str(checkpoint), "-o", str(path), *options)
        for done in (checkpoint, source):
            shutil.rmtree(done, ignore_errors=True)
    return found


def _module(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _edgepress(*arguments: str) -> str:
    return _module("edgepress", *arguments)


def take_apart(bundle: Path, samples: Samples) -> None:
    """One start in steps."""
    child = "edgepress.benchmarks.lab.programs.startup_child"
    found = json.loads(_module(child, str(bundle), str(PROMPT_TOKENS)))
    for step, milliseconds in found["cpu_ms"].items():
        samples.add(f"{step}, CPU ms", milliseconds)
    samples.add("sum of the steps, CPU ms", sum(found["cpu_ms"].values()))
    for kind in ("heap", "mapped files"):
        if kind in found["memory_mb"]:
            samples.add(f"{kind} at the first token, MB", found["memory_mb"][kind])


def whole_command(bundle: Path, samples: Samples) -> None:
    """One ``edgepress generate`` of a single token."""
    prompt = _WORD * PROMPT_TOKENS
    command = [sys.executable, "-m", "edgepress", "generate", str(bundle), "-p", prompt.strip(), "--no-chat"]
    began = time.monotonic()
    child = subprocess.Popen(
        [*command, "--max-new-tokens", "1", "-q"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert child.stdout is not None
    child.stdout.read(1)
    first = time.monotonic() - began
    child.stdout.read()
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode} from: {' '.join(command)}")
    unit = 1 if sys.platform == "darwin" else 1024
    samples.add("whole command, ms to the first text", 1000 * first)
    samples.add("whole command, CPU ms", 1000 * (usage.ru_utime + usage.ru_stime))
    samples.add("whole command, peak resident MB", usage.ru_maxrss * unit / 1e6)


ROWS = (
    *(f"{step}, CPU ms" for step in STEPS),
    "sum of the steps, CPU ms",
    "whole command, ms to the first text",
    "whole command, CPU ms",
    "whole command, peak resident MB",
    "heap at the first token, MB",
    "mapped files at the first token, MB",
)


def measure(work: Path, rounds: int, models: Sequence[str] = tuple(MODELS)) -> list[list[str]]:
    """The rows of the table. Models and operators are interleaved."""
    found = bundles(work, models)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is bytecode
    arms = [path for paths in found.values() for path in paths.values()]
    columns = {path: Samples() for path in arms}
    for _ in range(rounds):
        for path, samples in columns.items():
            take_apart(path, samples)
            whole_command(path, samples)
    return [[row, *(samples.best(row) for samples in columns.values())] for row in ROWS]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the models are or will be; kept if given")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", metavar="NAME", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgepress-startup-") as scratch:
        work = wanted.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        before = os.getloadavg()[0]
        rows = measure(work, wanted.rounds, wanted.models)
        after = os.getloadavg()[0]
    write_table(
        wanted.results / "startup.md",
        "From the start of the process to the first token",
        COMMAND if len(wanted.models) == len(MODELS) else f"{COMMAND} --models {shlex.join(wanted.models)}",
        ["", *(f"{name}, {operators}" for name in wanted.models for operators in OPERATORS)],
        rows,
        [
            f"The weights have 4 bits, the prompt {PROMPT_TOKENS} tokens; the least and in brackets the "
            f"median of {wanted.rounds} rounds, interleaved; files in the page cache.",
            "Columns: the operators that the bundle was exported with (`--for`). A first run is as any.",
            "Steps: one after another in a separate process. Whole command: `edgepress generate`, with "
            "hashing, session and tokenizer in parallel.",
            "Heap and mapped files: RssAnon and RssFile. Mapped pages are shared by all processes, and the "
            "operating system may evict them; the peak includes them.",
            f"Load average: {before:.1f} before, {after:.1f} after, on {os.cpu_count()} logical CPUs. Above "
            "the number of CPUs, wall times include waiting for a CPU.",
        ],
    )


if __name__ == "__main__":
    main()
