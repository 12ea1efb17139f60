"""What every verb plans and what it then takes, on models with 67 million to 7 billion random weights.

    python -m edgepress.benchmarks.lab.programs.planned_and_taken WORK [RESULTS] --model 7b --cases rtn,export

``WORK`` keeps the models (Llamas, made when they are missing), what the cases write, and of each finished
case what it took and what was planned: a case that is there is not run again, the tables are of all of them,
and a plan whose file is deleted is made again. A case runs in a process of its own, on one thread, under a
hard limit of memory. Needs about three times the model's size of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ....storage import write_atomic
from ..makers.random_llama import save_random_llama
from ..study.child import waited
from ..study.hard_limit import hard_limit, sizes_below, watched
from .planned_cases import (
    CASES,
    READ_BY_OTHERS,
    RECIPES,
    SHAPES,
    SHORT,
    TEXT,
    VERBS,
    WITHOUT_TEXT,
    Taken,
)
from .planned_pages import write_pages


def arguments_of(work: Path, model: str, name: str) -> list[str]:
    """The command line of a case, behind ``edgepress``."""
    if name in VERBS:
        paths = {other: str(work / other) for other in CASES} | {"model": str(work / "model")}
        return [one.format(**paths, out=work / name) for one in VERBS[name]]
    passes, recipe = RECIPES[name], work / f"{name}.yaml"
    recipe.write_text(f"passes: {passes}\n", encoding="utf-8")
    chosen = passes if passes.isidentifier() else str(recipe)
    samples, length = TEXT.get(model) or TEXT.get(name) or SHORT
    text = ("--text", "wikipedia", "--samples", str(samples), "--length", str(length))
    arguments = ["compress", str(work / "model"), "-r", chosen, "-o", str(work / name)]
    return arguments if name in WITHOUT_TEXT else [*arguments, *text]


def environment(work: Path) -> dict[str, str]:
    """One thread, so that a plan's time is processor time; temporary files where disk is watched."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(work)}


def planned(work: Path, model: str, name: str) -> dict[str, Any]:
    """The plan of a case, empty where its verb has none."""
    command = [sys.executable, "-m", "edgepress", *arguments_of(work, model, name), "--dry-run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(work))
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def run_case(work: Path, model: str, name: str, most: int) -> Taken:
    """Run a case whose inputs are there.

    Raises:
        SystemExit: the child failed.
    """
    out, parts = work / name, work / f"{name}.parts.json"
    program = ["edgepress.benchmarks.lab.study.timed_parts", str(parts)] if name == "rtn" else ["edgepress"]
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


def finished(work: Path) -> list[tuple[Taken, dict[str, Any]]]:
    """All cases below ``work``, with their plans; plans that are missing are made."""
    found = []
    for model in SHAPES:
        for case in CASES:
            record, plan = (work / model / f"{case}{ending}.json" for ending in (".taken", ".plan"))
            if record.exists():
                if not plan.exists():
                    write_atomic(plan, json.dumps(planned(work / model, model, case)).encode())
                found.append((Taken(**json.loads(record.read_bytes())), json.loads(plan.read_bytes())))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--model", choices=list(SHAPES), default="7b")
    parser.add_argument("--cases", default="", help="names, with commas between them; none: tables only")
    parser.add_argument("--limit", type=float, default=12.0, help="GB that a case may hold")
    wanted = parser.parse_args()
    work = wanted.work / wanted.model
    work.mkdir(parents=True, exist_ok=True)
    for name in filter(None, wanted.cases.split(",")):
        if not (work / "model").exists():
            save_random_llama(work / "making", SHAPES[wanted.model])
            (work / "making").rename(work / "model")
        if not (work / f"{name}.taken.json").exists():
            taken = run_case(work, wanted.model, name, int(wanted.limit * 1e9))
            write_atomic(work / f"{name}.taken.json", json.dumps(asdict(taken), indent=1).encode())
            if name not in READ_BY_OTHERS:
                shutil.rmtree(work / name, ignore_errors=True)
    write_pages(finished(wanted.work), wanted.results)


if __name__ == "__main__":
    main()
