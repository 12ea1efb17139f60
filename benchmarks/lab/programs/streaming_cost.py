"""What streaming costs a model that fits into memory: processor time of gradients a block at a time, beside
that of the whole model.

    python -m edgepress.benchmarks.lab.programs.streaming_cost WORK [RESULTS]
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ....compress.api import compress_model
from ....compress.measure.reading import last_states
from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ....compress.pipeline.backward_sweep import BackwardSweep
from ....compress.train.students.student import Student
from ....terminal import Silent
from ..study.page import write_table
from .streamed_gradients import CPU, LEARNS, of_autograd, of_the_sweep, real_batches

COMMAND = "python -m edgepress.benchmarks.lab.programs.streaming_cost WORK"
MODEL, ROUNDS, STEPS = "smollm2", 3, 8


def processor_times(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Processor seconds of each of ``runs``, the least of :data:`ROUNDS`, one after another in each."""
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.process_time()
            run()
            least[name] = min(least[name], time.process_time() - began)
    return least


def sweep(path: Path, folder: Path) -> None:
    """The gradients of the probe text, a block at a time."""
    shutil.rmtree(folder, ignore_errors=True)
    source, batches = WeightSource.open(path), real_batches(path)
    of_the_sweep(BackwardSweep(source, batches, CPU, Silent(), folder, precision="float32"))


def learning(rounded: Path, *, streams: bool) -> None:
    """Steps in which scales, zero points, norms and biases learn."""
    student: Any = Student(WeightSource.open(rounded), CPU, streams=streams)
    student.learn(LEARNS)
    for batch in (real_batches(rounded) * STEPS)[:STEPS]:
        rows = last_states(student.model, batch, CPU)
        student.model.get_output_embeddings()(rows).square().sum().backward()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    path, rounded = resolve(MODEL).path, wanted.work / "rounded"
    shutil.rmtree(rounded, ignore_errors=True)
    compress_model(str(path), scheme="W4A16_ASYM-g64", output=rounded)
    measured: dict[str, dict[str, Callable[[], object]]] = {
        "gradients of the whole model": {
            "streamed": lambda: sweep(path, wanted.work / "sweep"),
            "whole": lambda: of_autograd(path, real_batches(path), torch.float32),
        },
        f"{STEPS} steps of what learns": {
            "streamed": lambda: learning(rounded, streams=True),
            "whole": lambda: learning(rounded, streams=False),
        },
    }
    rows = []
    for name, runs in measured.items():
        streamed, whole = processor_times(runs).values()
        rows.append([name, f"{streamed:.1f}", f"{whole:.1f}", f"{streamed / whole:.2f}"])
    write_table(
        wanted.results / "streamed-gradients.md",
        "What streaming costs a model that fits into memory",
        COMMAND,
        ["work", "streamed, CPU s", "whole, CPU s", "ratio"],
        rows,
        [
            f"{MODEL}, float32, one thread; the least of {ROUNDS} rounds, streamed and whole one after the "
            "other in each, loading included. Bar: 1.3.",
            "Gradients of the probe text: a backward sweep, whose states wait on disk, against autograd in "
            "the whole model. What learns: scales, zero points, norms and biases of the rounded model; "
            "blocks that are read as they run, against a model that is held whole.",
        ],
    )


if __name__ == "__main__":
    main()
