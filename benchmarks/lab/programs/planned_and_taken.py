"""What every verb plans and what it then takes, on models with 67 million to 7 billion random weights.

    python -m edgepress.benchmarks.lab.programs.planned_and_taken WORK [RESULTS] --model 7b --cases rtn,export

``WORK`` keeps the models (Llamas, made when they are missing), what the cases write, and what each finished
case took: a case that is there is not run again. The tables are of these cases, with plans of the planner as
it is, and of the others that the results keep. ``--model 7b-2`` has two of the blocks of ``7b``: memory is
that of a block, so it shows what the whole would take at a price that a small machine can pay. A case runs in
a process of its own, on one thread, under a hard limit of memory. Needs about three times the model's size of
disk.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....files.storage import write_atomic
from ....terminal.progress import Silent
from ..makers.random_llama import save_random_llama
from ..planned.cases import (
    BLOCKS,
    CASES,
    READ_BY_OTHERS,
    RECIPES,
    SHAPES,
    SHORT,
    TEXT,
    VERBS,
    WITHOUT_TEXT,
    Taken,
    passes_of,
    shape_of,
)
from ..planned.pages import write_pages
from ..planned.records import Record, keep_records
from ..study.child import waited
from ..study.hard_limit import hard_limit, sizes_below, watched
from ..study.page import machine

# Programs that run a case and write where its processor time goes.
TIMED = {
    "rtn": "edgepress.benchmarks.lab.study.timed_parts",
    "gptq": "edgepress.benchmarks.lab.programs.gptq_parts",
}


def arguments_of(work: Path, model: str, name: str) -> list[str]:
    """The command line of a case, behind ``edgepress``."""
    if name in VERBS:
        paths = {other: str(work / other) for other in CASES} | {"model": str(work / "model")}
        return [one.format(**paths, out=work / name) for one in VERBS[name]]
    samples, length = _text(model, name)
    text = ("--text", "wikipedia", "--samples", str(samples), "--length", str(length))
    recipe = _recipe(work, model, name)
    arguments = ["compress", str(work / "model"), "-r", recipe, "-o", str(work / name)]
    return arguments if name in WITHOUT_TEXT else [*arguments, *text]


def _text(model: str, name: str) -> tuple[int, int]:
    """Samples of a case, and tokens of each."""
    return TEXT.get(model) or TEXT.get(name) or SHORT


def _recipe(work: Path, model: str, name: str) -> str:
    """A packaged recipe, or the file of one."""
    passes, recipe = passes_of(model, name), work / f"{name}.yaml"
    if passes.isidentifier():
        return passes
    recipe.write_text(f"passes: {passes}\n", encoding="utf-8")
    return str(recipe)


def environment(work: Path) -> dict[str, str]:
    """One thread, so that a plan's time is processor time; temporary files where disk is watched."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(work)}


def planned(work: Path, model: str, name: str) -> dict[str, Any]:
    """The plan of a case, empty where its verb has none."""
    # A child's peak begins with what its parent holds: not before. What does not fit here has a plan too.
    from ....compress.job import CalibrationChoice, Job

    if name in RECIPES:
        samples, length = (None, None) if name in WITHOUT_TEXT else _text(model, name)
        text = CalibrationChoice(None if samples is None else "wikipedia", samples, length)
        model_path, recipe = str(work / "model"), _recipe(work, model, name)
        plan = Job(model_path, recipe, None, None, text, Silent()).plan.as_dict()
    else:
        command = [sys.executable, "-m", "edgepress", *arguments_of(work, model, name), "--dry-run", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(work))
        plan = json.loads(done.stdout) if done.returncode == 0 else {}
    return {key: plan[key] for key in ("peak_memory", "seconds", "disk", "result_bytes") if key in plan}


def planned_whole(work: Path, model: str, name: str) -> dict[str, Any]:
    """The plan of a pass on all blocks of the size that ``model`` has some of; else empty. It is made for
    shapes without weights, and a verb that reads a result of them has none.
    """
    size, _, blocks = model.partition(BLOCKS)
    if not blocks or name not in RECIPES:
        return {}
    folder = work.parent / f"{size}-hollow"
    if not (folder / "model").exists():
        save_random_llama(folder / "model", shape_of(size), hollow=True)
    return planned(folder, model, name)


def run_case(work: Path, model: str, name: str, most: int) -> Taken:
    """Run a case whose inputs are there."""
    out, parts = work / name, work / f"{name}.parts.json"
    program = [TIMED[name], str(parts)] if name in TIMED else ["edgepress"]
    command = [sys.executable, "-m", *program, *arguments_of(work, model, name)]
    enter, limit = hard_limit(most)
    with watched(work) as growth, (work / f"{name}.log").open("ab") as log:
        started = time.monotonic()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=enter,
            env=environment(work),
            cwd=work,
        )
        cost = waited(child, started)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}: see {work / name}.log")
    return Taken(
        model,
        name,
        cost.peak_rss,
        cost.cpu_seconds,
        cost.wall_seconds,
        growth(),
        sizes_below(out) if out.is_dir() else 0,
        limit,
        json.loads(parts.read_bytes()) if parts.exists() else {},
    )


def finished(work: Path) -> Iterator[Record]:
    """All cases below ``work``, with their plans."""
    for path in sorted(work.glob("*/*.taken.json")):
        taken = Taken(**json.loads(path.read_bytes()))
        day = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date().isoformat()
        of_some, of_all = (plan(path.parent, taken.model, taken.case) for plan in (planned, planned_whole))
        yield Record(taken, of_some, of_all, day, machine())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--model", default="7b", help=f"{', '.join(SHAPES)}; 7b-2 has two of its blocks")
    parser.add_argument("--cases", default="", help="names, with commas between them; none: tables only")
    parser.add_argument("--limit", type=float, default=12.0, help="GB that a case may hold")
    wanted = parser.parse_args()
    work = wanted.work / wanted.model
    work.mkdir(parents=True, exist_ok=True)
    for name in filter(None, wanted.cases.split(",")):
        if not (work / "model").exists():
            shutil.rmtree(work / "making", ignore_errors=True)  # of a run that was killed
            save_random_llama(work / "making", shape_of(wanted.model))
            (work / "making").rename(work / "model")
        if not (work / f"{name}.taken.json").exists():
            taken = run_case(work, wanted.model, name, int(wanted.limit * 1e9))
            write_atomic(work / f"{name}.taken.json", json.dumps(asdict(taken), indent=1).encode())
            if name not in READ_BY_OTHERS:
                shutil.rmtree(work / name, ignore_errors=True)
    write_pages(keep_records(wanted.results, finished(wanted.work)), wanted.results)


if __name__ == "__main__":
    main()
