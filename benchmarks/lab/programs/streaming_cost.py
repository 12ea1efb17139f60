"""What streaming costs a model that fits into memory: processor time of gradients a block at a time, beside
that of the whole model; alone, and in passes that measure with them.

    python -m edgepress.benchmarks.lab.programs.streaming_cost WORK [RESULTS]
"""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from torch import Tensor, nn

from ....compress.api import compress_model
from ....compress.measure.fisher import Measure, direction, looking, observed
from ....compress.measure.reading import autocast, last_states
from ....compress.model.anatomy import Anatomy, module_name
from ....compress.model.models import resolve
from ....compress.model.skeleton import Skeleton
from ....compress.model.torch_model import load_model
from ....compress.model.weights import WeightSource
from ....compress.pipeline.backward_sweep import BackwardSweep
from ....compress.pipeline.stage import Stage
from ....compress.text.micro_batches import MicroBatch
from ....compress.train.students.student import Student
from ....terminal.progress import Silent
from ..study.page import write_table
from .streamed_gradients import CPU, LEARNS, largest_error, of_autograd, of_the_sweep, real_batches

COMMAND = "python -m edgepress.benchmarks.lab.programs.streaming_cost WORK"
MODEL, ROUNDS, STEPS = "smollm2", 3, 8
# Passes that measure losses by gradients, on 16 × 512 tokens of Wikipedia.
PASSES: dict[str, dict[str, Any]] = {
    "allocate, rounding to nearest": {"pass": "allocate", "bits": 3.5, "using": {"pass": "rtn"}},
    "allocate, GPTQ": {"pass": "allocate", "bits": 3.5},
    "narrow": {"pass": "narrow", "keep": 0.8},
    "narrow, solved": {"pass": "narrow", "keep": 0.8, "widths": "solved"},
}


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


class Whole:
    """A model that is held whole, as observers ask for its modules."""

    def __init__(self, source: WeightSource) -> None:
        self.anatomy: Anatomy = source.anatomy
        self.model = load_model(source, cache=False)
        table: Any = self.submodule(source.anatomy.embedding)
        table.weight.requires_grad_(True)  # so that gradients go all the way

    def submodule(self, stored: str) -> nn.Module:
        """As :meth:`.Skeleton.submodule`."""
        return self.model.get_submodule(module_name(self.anatomy, stored))

    def weight(self, name: str) -> Tensor:
        """That of a linear."""
        return self.submodule(name).get_parameter("weight").detach()

    def states(self, batch: MicroBatch) -> Tensor:
        """The last ones of its tokens."""
        with autocast("auto", CPU):
            return last_states(self.model, batch, CPU)


def measured_whole(
    stage: Stage,
    batches: Sequence[MicroBatch],
    who: str,
    measure: Measure,
    looked_at: Sequence[MicroBatch] = (),
) -> dict[str, Tensor]:
    """:meth:`.Stage.measured_on` with autograd in the whole model, and observers of all blocks at once."""
    whole: Any = Whole(stage.source)
    observers = [(block, measure(block, whole.weight)) for block in whole.anatomy.blocks]
    with ExitStack() as contexts:
        shown = [contexts.enter_context(looking(whole, one, block)) for block, one in observers]
        for batch in looked_at if None not in shown else ():
            for expect in filter(None, shown):
                expect(batch.attention_mask.bool(), None)
            with torch.no_grad():
                whole.states(batch)
    generator, tokens = torch.Generator().manual_seed(0), sum(batch.tokens for batch in batches)
    with ExitStack() as contexts:
        watching = [contexts.enter_context(observed(whole, one, block)) for block, one in observers]
        head = contexts.enter_context(Skeleton(stage.source, CPU).head())
        for batch in batches:
            for expect in watching:
                expect(batch.attention_mask.bool(), None)
            with torch.enable_grad():
                rows = whole.states(batch)
            rows.backward(direction(head, rows.detach(), generator))
    return {name: one.found(tokens, 0.5 / tokens) for _, each in observers for name, one in each.items()}


class Timed:
    """A way to measure, with what it found and the processor seconds that it took."""

    def __init__(self, way: Callable[..., dict[str, Tensor]]) -> None:
        self.way, self.seconds = way, 0.0
        self.found: dict[str, Tensor] = {}

    def __call__(self, *given: Any) -> dict[str, Tensor]:
        began = time.process_time()
        self.found = self.way(*given)
        self.seconds = time.process_time() - began
        return self.found


def pass_rows(model: Path, work: Path) -> list[list[str]]:
    """Of each of :data:`PASSES` what it measures, and the whole of it, as it is and with a whole model."""
    rows = []
    for name, options in PASSES.items():
        recipe, calibration = work / "recipe.yaml", {"samples": 16, "length": 512}
        recipe.write_text(yaml.safe_dump({"name": name, "passes": [options], "calibration": calibration}))
        ways, passes = (Timed(Stage.measured_on), Timed(measured_whole)), []
        for way in ways:
            began = time.process_time()
            with patch.object(Stage, "measured_on", lambda *given, way=way: way(*given)):
                compress_model(
                    str(model), recipe=str(recipe), calibration="wikipedia", output=work / "passed"
                )
            passes.append(time.process_time() - began)
            shutil.rmtree(work / "passed")
        apart = largest_error(*(way.found for way in ways))
        rows.append(row(f"what {name} measures", [way.seconds for way in ways], f"{apart:.1g}"))
        rows.append(row(f"{name}, the pass", passes, "–"))
    return rows


def row(name: str, seconds: Sequence[float], apart: str) -> list[str]:
    """Of the table: streamed and whole, and how far they are apart in what they find."""
    streamed, whole = seconds
    return [name, f"{streamed:.1f}", f"{whole:.1f}", f"{streamed / whole:.2f}", apart]


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
        "gradients alone": {
            "streamed": lambda: sweep(path, wanted.work / "sweep"),
            "whole": lambda: of_autograd(path, real_batches(path), torch.float32),
        },
        f"{STEPS} steps of what learns": {
            "streamed": lambda: learning(rounded, streams=True),
            "whole": lambda: learning(rounded, streams=False),
        },
    }
    rows = [row(name, list(processor_times(runs).values()), "–") for name, runs in measured.items()]
    rows += pass_rows(path, wanted.work)
    write_table(
        wanted.results / "streamed-gradients.md",
        "What streaming costs a model that fits into memory",
        COMMAND,
        ["work", "streamed, CPU s", "whole, CPU s", "ratio", "apart"],
        rows,
        [
            f"{MODEL}, one thread, streamed and whole one after the other, loading included; the first two "
            f"rows in float32, the least of {ROUNDS} rounds. Bar: 1.3.",
            "Gradients alone, of the probe text: a backward sweep, whose states wait on disk, against "
            "autograd in the whole model. What learns: scales, zero points, norms and biases of the rounded "
            "model; blocks that are read as they run, against a model that is held whole.",
            "Passes: as they are, on 16 × 512 tokens of Wikipedia, and with the same observers in the whole "
            "model, through which autograd goes once. Apart: the largest distance of what is measured of a "
            "linear, relative to it; 0: the same to the bit.",
        ],
    )


if __name__ == "__main__":
    main()
