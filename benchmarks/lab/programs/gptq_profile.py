"""Where GPTQ's time goes on SmolLM2, by kinds of work, with the floor of the arithmetic beside it.

    python -m edgepress.benchmarks.lab.programs.gptq_profile WORK RESULTS

One `compress` runs in this process on one thread under Python's profiler, whose clock is the CPU time of the
process: what other programs take does not count.
"""

import argparse
import cProfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from pstats import Stats

from ....compress.api import compress_model
from ....compress.job import BATCH_TOKENS
from ....compress.model.models import resolve
from ....compress.model.weights import WeightSource
from ..peers.floor import Floor, floor
from ..planned.gptq_floor import COLUMNS, FACTORS, FORWARD, GRAMS, GRIDS, LEFT
from ..study.page import write_table

MODEL, SCHEME, SAMPLES, LENGTH = "smollm2", "W4A16-g64", 16, 512
COMMAND = "python -m edgepress.benchmarks.lab.programs.gptq_profile WORK benchmarks/lab/results"
# Kinds of work, by the functions that do it: (file, function). None of them calls another, save that Grams
# are added up inside forward passes: they are taken out of those.
KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    FORWARD: (("compress/pipeline/forward.py", "run_block"),),
    GRAMS: (("compress/pipeline/statistics.py", "update"), ("compress/pipeline/statistics.py", "value")),
    GRIDS: (("compress/numbers/grid.py", "fit_grid"),),
    COLUMNS: (("compress/solve/column_recursion.py", "quantize_in_order"),),
    FACTORS: (("compress/solve/damped_cholesky.py", "factorize"),),
    LEFT: (("compress/pipeline/block.py", "rounded_into"),),
    "activations to disk and back, hashed": (
        ("compress/pipeline/block_inputs.py", "write"),
        ("compress/pipeline/block_inputs.py", "raw"),
        ("compress/pipeline/journal.py", "hashes"),
    ),
    "weights read and written": (
        ("compress/model/skeleton.py", "fill"),
        ("compress/pipeline/block_shards.py", "write"),
        ("compress/pipeline/block_shards.py", "outer"),
        ("compress/pipeline/stage.py", "assemble"),
    ),
    "the damage measured on probes": (("compress/pipeline/damage_probe.py", "decoder_divergences"),),
    "calibration text, tokenized": (("compress/text/calibration.py", "calibration_from"),),
}


def profiled(work: Path) -> tuple[dict[str, float], float]:
    """CPU seconds by kind of work, and those of the whole process up to now, start and imports included."""
    work.mkdir(parents=True, exist_ok=True)
    profiler = cProfile.Profile(time.process_time)
    # A directory of its own: what a killed run left would be taken up, and its blocks not be profiled.
    with tempfile.TemporaryDirectory(dir=work) as place:
        target = Path(place) / "out"
        profiler.enable()
        compress_model(
            MODEL, scheme=SCHEME, calibration="wikipedia", samples=SAMPLES, length=LENGTH, output=target
        )
        profiler.disable()
    return by_kind(Stats(profiler)), time.process_time()


def by_kind(stats: Stats) -> dict[str, float]:
    """CPU seconds of each kind of work, with what its functions call."""
    entries: Mapping[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    found = {}
    for kind, functions in KINDS.items():
        found[kind] = sum(
            cumulative
            for (file, _, name), (_, _, _, cumulative, _) in entries.items()
            if any(file.endswith(ending) and name == function for ending, function in functions)
        )
    found[FORWARD] -= found[GRAMS]
    return found


def filled(seconds: Mapping[str, float], whole: float, least: Floor) -> list[list[str]]:
    """The rows of the table, the largest first, then what is left and the whole."""
    floors = {FORWARD: least.forward / least.rate, GRAMS: least.grams / least.rate}
    rows = []
    for kind, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        bottom = f"{floors[kind]:.1f}" if kind in floors else "–"
        rows.append([kind, f"{taken:.1f}", f"{100 * taken / whole:.0f}", bottom])
    left = whole - sum(seconds.values())
    rows.append(["start, imports and the rest", f"{left:.1f}", f"{100 * left / whole:.0f}", "–"])
    return [*rows, ["whole process", f"{whole:.1f}", "100", f"{least.seconds:.1f}"]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    seconds, whole = profiled(arguments.work)
    anatomy = WeightSource.open(resolve(MODEL).path).anatomy
    least = floor(anatomy, SAMPLES * LENGTH, LENGTH, BATCH_TOKENS)
    write_table(
        arguments.results / "compression-cost.md",
        "Where GPTQ's time goes: SmolLM2-135M",
        COMMAND,
        ["work", "CPU s", "% of the whole", "floor, CPU s"],
        filled(seconds, whole, least),
        [
            f"{SCHEME} with {SAMPLES} × {LENGTH} tokens of Wikipedia, one thread. {least.sentence()}",
            "Forward passes: one to capture a block's inputs, one with quantized weights, and short probes.",
        ],
        page="What a compression costs",
    )


if __name__ == "__main__":
    main()
