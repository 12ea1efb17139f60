"""Every verb on a model that is larger than the memory it may take: peaks beside their plans.

    python -m edgepress.benchmarks.lab.programs.large_model WORK [benchmarks/lab/results] --cases rtn,export

``WORK`` keeps the model (a Llama with random weights, made when it is missing), what the cases write, and a
line per finished case: a case that is there is not run again, and the table is of all lines. Every case runs
in a process of its own under a hard limit: a memory control group below this process's own where it may make
one, else a limit of private memory. Needs about three times the model's size of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ....storage import write_atomic
from ..makers.random_llama import Size, save_random_llama
from ..study.child import waited
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.large_model WORK"
PAGE = "A model larger than memory"
FIFTY_STEPS = "{tokens: 6400, batch_tokens: 128, micro_batch_tokens: 128}"
TEXT = ("--text", "wikipedia", "--samples", "16", "--length", "512")
# Passes that learn or measure: enough text to run every part of them, not enough to make the model better.
SHORT_TEXT = ("--text", "wikipedia", "--samples", "4", "--length", "128")
PROMPT = ("--prompt", "The weather today is", "--max-new-tokens", "32")
SHAPES = {
    "0.5b": Size(1024, 3584, 32),
    "1b": Size(1792, 5632, 26),
    "3b": Size(2560, 8960, 36),
    "7b": Size(4096, 14336, 32),
}
_GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Case:
    """One run of a verb: its arguments, in which {model}, {out} and the names of other cases are paths."""

    arguments: tuple[str, ...]
    recipe: str = ""


def _compress(recipe: str, text: Sequence[str] = ()) -> Case:
    return Case(("compress", "{model}", "-r", "{recipe}", "-o", "{out}", *text), recipe)


W4 = "scheme: W4A16-g64"
CASES = {
    "rtn": _compress(f"passes: [{{pass: rtn, {W4}}}]"),
    "gptq": _compress(f"passes: [{{pass: gptq, {W4}}}]", TEXT),
    "awq": _compress(f"passes: [{{pass: awq, {W4}}}]", SHORT_TEXT),
    "autoround": _compress(
        f"passes: [{{pass: autoround, {W4}, iterations: 10, low_memory: true}}]", SHORT_TEXT
    ),
    "allocate": _compress("passes: [{pass: allocate, bits: 3.5, using: {pass: rtn}}]", SHORT_TEXT),
    "narrow": _compress("passes: [{pass: narrow, keep: 0.8}]", SHORT_TEXT),
    "layers": _compress("passes: [{pass: layers, keep: 0.8}]", SHORT_TEXT),
    "tune": _compress(f"passes: [{{pass: rtn, {W4}}}, {{pass: tune, training: {FIFTY_STEPS}}}]", SHORT_TEXT),
    "export": Case(("export", "{rtn}", "-o", "{out}")),
    "validate": Case(("validate", "{export}", "--against", "{model}", "--windows", "4")),
    "generate": Case(("generate", "{export}", *PROMPT)),
    "profile": Case(("profile", "{export}", "--quick", "--prompt-tokens", "1000", "--max-new-tokens", "32")),
}


@dataclass
class Line:
    """What one case planned and took: bytes and seconds."""

    model: str
    case: str
    peak: int
    cpu_seconds: float
    wall_seconds: float
    disk: int
    written: int
    planned_peak: int | None
    planned_disk: int | None
    planned_seconds: float | None
    limit: str


def sizes_below(directory: Path) -> int:
    """Bytes that the files of ``directory`` occupy; files that go away meanwhile count nothing."""
    total = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            try:
                total += (Path(folder) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


@contextmanager
def watched(directory: Path) -> Iterator[Callable[[], int]]:
    """Follow what ``directory`` occupies; the function tells its largest growth so far."""
    before = largest = sizes_below(directory)
    stop = threading.Event()

    def follow() -> None:
        nonlocal largest
        while not stop.wait(1.0):
            largest = max(largest, sizes_below(directory))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield lambda: largest - before
    finally:
        stop.set()
        thread.join()


def hard_limit(most: int) -> tuple[Callable[[], None], str]:
    """What a child calls before it starts, so that it may hold ``most`` bytes, and what that is called."""
    own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    place = next((line.split(":", 2)[2] for line in own if line.split(":")[1] == "memory"), None)
    if place is not None:
        group = _GROUPS / place.lstrip("/") / "edgepress-large-model"
        try:
            group.mkdir(exist_ok=True)
            (group / "memory.limit_in_bytes").write_text(str(most), encoding="ascii")
            return lambda: _join(
                group
            ), f"memory control group of {most / 1e9:.0f} GB, its page cache included"
        except OSError:
            pass
    return lambda: resource.setrlimit(
        resource.RLIMIT_DATA, (most, most)
    ), f"RLIMIT_DATA of {most / 1e9:.0f} GB"


def _join(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def planned(command: Sequence[str]) -> dict[str, Any]:
    """The plan of a command, empty where its verb has none."""
    done = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def run_case(work: Path, model: str, name: str, most: int) -> Line:
    """Run a case whose inputs are there.

    Raises:
        SystemExit: the child failed.
    """
    case, out = CASES[name], work / name
    recipe = work / f"{name}.yaml"
    recipe.write_text(case.recipe, encoding="utf-8")
    paths = {other: str(work / other) for other in CASES} | {"model": str(work / "model")}
    arguments = [one.format(**paths, recipe=recipe, out=out) for one in case.arguments]
    command = [sys.executable, "-m", "edgepress", *arguments]
    plan = planned(command)
    enter, limit = hard_limit(most)
    environment = {**os.environ, "TMPDIR": str(work)}
    with watched(work) as growth, (work / f"{name}.log").open("ab") as log:
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=enter,
            env=environment,
            cwd=work,
        )
        cost = waited(child, started)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}: see {work / name}.log")
    return Line(
        model,
        name,
        cost.peak_rss,
        cost.cpu_seconds,
        cost.wall_seconds,
        growth(),
        sizes_below(out) if out.is_dir() else 0,
        plan.get("peak_memory"),
        plan.get("disk"),
        plan.get("seconds"),
        limit,
    )


def _beside(measured: float, plan: float | None, unit: float) -> str:
    told = "–" if plan is None else f"{plan / unit:.2f}"
    return f"{measured / unit:.2f} / {told}"


def row(line: Line) -> list[str]:
    """A line of the table."""
    return [
        line.model,
        line.case,
        _beside(line.peak, line.planned_peak, 1e9),
        f"{line.cpu_seconds:.0f}",
        f"{line.wall_seconds:.0f}",
        _beside(line.disk, line.planned_disk, 1e9),
        f"{line.written / 1e9:.2f}" if line.written else "–",
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--model", choices=list(SHAPES), default="7b")
    parser.add_argument("--cases", default=",".join(CASES), help="names, with commas between them")
    parser.add_argument("--limit", type=float, default=12.0, help="GB that a case may hold")
    wanted = parser.parse_args()
    work = wanted.work / wanted.model
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "model").exists():
        save_random_llama(work / "making", SHAPES[wanted.model])
        (work / "making").rename(work / "model")
    for name in wanted.cases.split(","):
        record = work / f"{name}.json"
        if not record.exists():
            line = run_case(work, wanted.model, name, int(wanted.limit * 1e9))
            write_atomic(record, json.dumps(asdict(line), indent=1).encode())
            if name not in {"rtn", "export"} and (work / name).is_dir():
                shutil.rmtree(work / name)
    write_page(wanted.work, wanted.results)


def write_page(work: Path, results: Path) -> None:
    """The table of all finished cases below ``work``."""
    found = [work / model / f"{case}.json" for model in SHAPES for case in CASES]
    lines = [Line(**json.loads(file.read_bytes())) for file in found if file.exists()]
    notes = [
        f"{name}: Llama, random bfloat16 weights, {size.hidden} hidden, {size.ffn} in the MLP, "
        f"{size.blocks} blocks"
        for name, size in SHAPES.items()
        if any(line.model == name for line in lines)
    ]
    limits = sorted({line.limit for line in lines})
    write_table(
        results / "large-model.md",
        "Peak memory, time and disk of every verb",
        COMMAND,
        ["model", "case", "peak GB / plan", "CPU s", "wall s", "disk GB / plan", "written GB"],
        [row(line) for line in lines],
        [
            *notes,
            f"Hard limit: {'; '.join(limits)}.",
            "Peak: ru_maxrss of the process, pages of mapped files included.",
            "Disk: the largest growth of the work directory while it ran, temporary files and output.",
            *(
                f"{name}: `edgepress {' '.join(case.arguments)}`"
                + (f", recipe `{case.recipe}`" if case.recipe else "")
                for name, case in CASES.items()
                if any(line.case == name for line in lines)
            ),
        ],
        page=PAGE,
    )


if __name__ == "__main__":
    main()
