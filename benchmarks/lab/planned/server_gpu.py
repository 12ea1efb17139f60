"""What compressing large models would take on one server GPU, its weights streamed over PCIe: extrapolated.

    python -m edgepress.benchmarks.lab.planned.server_gpu WORK [RESULTS]

How often every weight is copied to the device is counted, on a small Llama with the same text; the work is
what a plan counts for the shapes of the large ones; rates are of a data sheet.
"""

import argparse
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ....compress.api import compress_model
from ....compress.costs import LIBRARIES, seconds_of
from ....compress.job import CalibrationChoice, Job
from ....compress.model.skeleton import Skeleton
from ....compress.rates import Rates, measured_rates
from ....compress.train.students.streamed_blocks import Frozen
from ....terminal.progress import Silent
from ..makers.random_llama import Size, save_random_llama
from ..study.page import write_table
from .cases import RECIPES, SHAPES, TEXT, VOCABULARY, WITHOUT_TEXT, weights_of
from .growth import LARGER

COMMAND = "python -m edgepress.benchmarks.lab.planned.server_gpu WORK"
CASES = ("rtn", "gptq", "awq", "autoround", "allocate", "narrow", "layers", "tune")
MODELS = ("7b", *LARGER)
COUNTED = Size(256, 704, 8)  # on which copies are counted: as often for more blocks
SAMPLES, LENGTH = 4, 128
# NVIDIA's data sheet of the H100 SXM: float32 outside the tensor cores, memory, PCIe 5.0 with 16 lanes in one
# direction. What is reached of each is a guess: no GPU was at hand.
FLOAT32, MEMORY, PCIE = 67e12, 3.35e12, 64e9
REACHED = 0.6
# Bytes that a weight moves in memory when it is rounded to one grid, and as an entry of a recursion.
_ROUNDED, _ENTRY = 24, 16
_COLUMN = 50e-6  # seconds of a column's kernels, one started after the other


def on_the_gpu() -> Rates:
    """The rates of the GPU; what is read, hashed and started is this machine's work."""
    products, moved = REACHED * FLOAT32 / 2, REACHED * MEMORY
    return replace(
        measured_rates(),
        products=products,
        factors=products / 3,  # a factor's parts depend on each other
        columns=1 / _COLUMN,
        entries=moved / _ENTRY,
        roundings=moved / _ROUNDED,
    )


@contextmanager
def counted() -> Iterator[list[int]]:
    """Bytes of the matrices that are copied to the device inside, one entry a copy."""
    copies: list[int] = []
    assign, fill = Skeleton.assign, Frozen.fill

    def counts_assigned(self: Skeleton, module: nn.Module, local: str, value: Tensor) -> None:
        copies.append(4 * value.numel() if value.ndim > 1 and len(value) != VOCABULARY else 0)
        assign(self, module, local, value)

    def counts_filled(self: Frozen, value: Tensor, device: Any) -> None:
        copies.append(value.nbytes)
        fill(self, value, device)

    Skeleton.assign, Frozen.fill = counts_assigned, counts_filled  # type: ignore[method-assign]
    try:
        yield copies
    finally:
        Skeleton.assign, Frozen.fill = assign, fill  # type: ignore[method-assign]


def copied(work: Path, case: str) -> float:
    """Bytes that go to the device for each weight of the blocks."""
    model, out = work / "counted", work / "out"
    if not model.exists():
        save_random_llama(model, COUNTED)
    shutil.rmtree(out, ignore_errors=True)
    text: dict[str, Any] = {"calibration": "wikipedia", "samples": SAMPLES, "length": LENGTH}
    with counted() as copies:
        compress_model(
            str(model),
            recipe=_recipe(work, case),
            output=out,
            progress=Silent(),
            **({} if case in WITHOUT_TEXT else text),
        )
    return sum(copies) / (COUNTED.blocks * weights_of(COUNTED)[0])


def _recipe(work: Path, case: str) -> str:
    path = work / f"{case}.yaml"
    path.write_text(f"passes: {RECIPES[case]}\n", encoding="utf-8")
    return str(path)


def cell(work: Path, model: str, case: str, each: float) -> str:
    """Memory of the GPU, seconds, and how many of these are copies, where a weight takes ``each`` bytes."""
    folder, size = work / f"{model}-hollow", (SHAPES | LARGER)[model]
    if not folder.exists():
        save_random_llama(folder, size, hollow=True)
    samples, length = TEXT.get(case, (SAMPLES, LENGTH))
    choice = CalibrationChoice(None if case in WITHOUT_TEXT else "wikipedia", samples, length)
    job, rates = Job(str(folder), _recipe(work, case), None, None, choice, Silent()), on_the_gpu()
    at_once = min(job.batch_size, samples) * length
    there = replace(rates, stored=math.inf)
    whole, computes = (
        seconds_of(job.source, job.recipe, samples, length, at_once, one) for one in (rates, there)
    )
    copies = each * size.blocks * weights_of(size)[0] / (REACHED * PCIE)
    files = (job.plan.checkpoint_bytes + 3 * job.plan.result_bytes) / rates.stored + whole - computes
    seconds = rates.start + files + max(computes, copies)
    memory = (job.plan.peak_memory - LIBRARIES) / 1e9
    return (
        f"{memory:.1f} GB, {seconds:,.0f} s ({files:,.0f} files, {copies:,.0f} copies, {computes:,.0f} work)"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    wanted = parser.parse_args()
    wanted.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in CASES:
        each = copied(wanted.work, case)
        rows.append([case, f"{each:.0f}", *(cell(wanted.work, model, case, each) for model in MODELS)])
    write_table(
        wanted.results / "large-model.md",
        "What it would take on one server GPU",
        COMMAND,
        ["case", "bytes copied a weight", *MODELS],
        rows,
        [
            "**Extrapolated, not measured**: no GPU was at hand. An H100 SXM by its data sheet, of which "
            f"{REACHED:g} is taken to be reached: {FLOAT32 / 1e12:.0f} TFLOPS of float32 outside the tensor "
            f"cores (edgepress computes in bfloat16, faster, where that is enough), {MEMORY / 1e12:g} TB/s, "
            f"and {PCIE / 1e9:.0f} GB/s of PCIe 5.0.",
            "Memory is the GPU's. Seconds: the start, the files, which one processor of this machine reads, "
            "hashes and makes float32 (tune's codes in every step), and the longer of copies and work, since "
            "the next block is read and copied while one computes.",
            f"Bytes copied: counted on a Llama of {COUNTED.blocks} blocks and {COUNTED.hidden} channels; 4 "
            "are one copy in float32, as often for any size. Work: what the plan counts for the shapes.",
            f"{SAMPLES} × {LENGTH} tokens (gptq 16 × 512), the cases of the first table.",
        ],
    )


if __name__ == "__main__":
    main()
