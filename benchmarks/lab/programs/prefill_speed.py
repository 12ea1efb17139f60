"""Prefill of SmolLM2 at 4 bits: the model's own graph, the prefill graph, and other ways to compute it.

    python -m edgepress.benchmarks.lab.programs.prefill_speed WORK [RESULTS] [--rounds 8] [--untimed]

The checkpoint, the bundle and its prepacked entry are made by the command line a user would type and stay in
WORK, as do the distances, after which ``--untimed`` stops. All variants are timed in turns in one process;
peaks of memory are those of processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.decoder import Decoder
from ....runtime.prepack import prepacked
from ....storage import read_json, write_json
from ...speed.paired import compare_rates
from ...speed.peak_memory import peak_rss
from .prefill_arms import OWN, ROWS, SHIPPED, STORED, Arms, Variant, opening_ms
from .prefill_distance import AFTER, FILLED, WINDOWS, distances
from .results_page import write_table

MODEL = "smollm2"
PROMPTS, THREADS = (128, 1024), (1, 2)
RECIPE = "name: w4\npasses:\n  - {pass: gptq, scheme: W4A16-g64, refinements: 2}\n"
CALIBRATION = "--calibration wikipedia --samples 16 --length 512"
COMMAND = "python -m edgepress.benchmarks.lab.programs.prefill_speed WORK benchmarks/lab/results"


def edgepress(command: str) -> None:
    """Run a command line of this package."""
    print(f"$ edgepress {command}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "edgepress", *shlex.split(command)], check=True)


def made(work: Path) -> Bundle:
    """The bundle, prepacked; whatever is not there yet is made."""
    checkpoint, bundle = work / "w4", work / "w4-onnx"
    os.environ["EDGEPRESS_CACHE"] = str(work / "cache")
    if not checkpoint.exists():
        recipe = work / "w4.yaml"
        recipe.write_text(RECIPE)
        edgepress(f"compress {MODEL} -r {recipe} {CALIBRATION} -o {checkpoint} -q")
    if not bundle.exists():
        edgepress(f"export {checkpoint} -o {bundle} -q")
    edgepress(f"cache make {bundle}")
    return Bundle.open(bundle)


def speed(bundle: Bundle, work: Path, rounds: int) -> dict[Variant, list[str]]:
    """For each number of threads and prompt: tokens a second, and the ratio to the first row."""
    cells: dict[Variant, list[str]] = {variant: [] for variant in ROWS}
    for threads in THREADS:
        arms = Arms(bundle, work, threads)
        for length in PROMPTS:
            ids = np.random.default_rng(length).integers(0, bundle.decoder.vocab_size, length).tolist()
            rates: dict[Variant, list[float]] = {variant: [] for variant in ROWS}
            for number in range(rounds + 1):
                for variant in ROWS if number % 2 else ROWS[::-1]:
                    rates[variant].append(arms.rate(variant, ids))
            for variant in ROWS:
                cells[variant].append(_shown(rates[variant][1:], rates[OWN][1:], variant))
                print(threads, length, variant.name, cells[variant][-1], file=sys.stderr, flush=True)
    return cells


def _shown(mine: list[float], own: list[float], variant: Variant) -> str:
    found = compare_rates(mine, own)
    if variant == OWN or found.ratio_median is None or found.ci95 is None:
        return f"{np.median(mine):.0f}"
    low, high = found.ci95
    return f"{np.median(mine):.0f}, × {found.ratio_median:.2f} [{low:.2f}, {high:.2f}]"


def memory(bundle: Bundle, *arguments: str) -> str:
    """Megabytes: the peak of a process that runs the longer prompt and a step, and what of it was heap."""
    command = [
        sys.executable,
        "-m",
        "edgepress.benchmarks.lab.programs.prefill_speed",
        str(bundle.path),
        "--child",
    ]
    done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    peak, heap = json.loads(done.stdout)
    return f"{peak / 1e6:.0f} ({heap / 1e6:.0f})"


def child(path: Path, *, prefill: bool) -> None:
    """The process whose memory is measured."""
    decoder = Decoder.open(Bundle.open(path, verify=False), 1, prefill=prefill)
    decoder.prefill(list(range(100, 100 + PROMPTS[-1])), new_tokens=1)
    decoder.step(1)
    status = Path("/proc/self/status")
    lines = status.read_text("ascii").splitlines() if status.is_file() else []
    heap = [int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")]
    print(json.dumps([peak_rss()[0], next(iter(heap), 0)]))


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--untimed", action="store_true", help="distances only")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.child:
        child(wanted.work, prefill=not wanted.own)
        return
    wanted.work.mkdir(parents=True, exist_ok=True)
    bundle = made(wanted.work)
    kept = wanted.work / "quality.json"
    if not kept.exists():
        write_json(kept, distances(bundle, wanted.work, MODEL))
    judged = read_json(kept)
    if wanted.untimed:
        return
    peaks = {"own": memory(bundle, "--own"), "int8": memory(bundle)}
    opened = {graph: f"{opening_ms(bundle, wanted.work, graph):.0f}" for graph in STORED}
    before = os.getloadavg()[0]
    timed = speed(bundle, wanted.work, wanted.rounds)
    after = os.getloadavg()[0]
    rows = [
        [variant.name, *timed[variant], peaks.get(variant.graph, "–"), *judged[_same(variant.graph)]]
        for variant in ROWS
    ]
    header = ["variant", *(f"{p} tokens, {t} thr, tok/s" for t in THREADS for p in PROMPTS)]
    header += ["peak MB (heap)", "KL from the original", "KL from the own graph"]
    write_table(
        wanted.results / "prefill.md",
        "Prefill of SmolLM2-135M at 4 bits",
        COMMAND,
        header,
        rows,
        [
            *_notes(bundle, wanted.rounds),
            f"Opening the prefill graph takes {opened['int8']} ms, {opened['packed']} ms where its weights "
            "are packed for the kernels at once; in the first case each product packs them as it goes.",
            f"Load average: {before:.1f} before the timing, {after:.1f} after.",
        ],
    )


def _same(graph: str) -> str:
    """The graph that computes what ``graph`` does, of those whose distance is known."""
    return "int8" if graph in STORED else graph


def _notes(bundle: Bundle, rounds: int) -> list[str]:
    assert bundle.prefill is not None
    graph, entry = (bundle.path / bundle.prefill.file).stat().st_size, prepacked.find(bundle)
    assert entry is not None
    added = sum(file.stat().st_size for file in entry.path.glob("prefill.onnx*"))
    return [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid; weights W4A16-g64 GPTQ, "
        f"two refinements, {CALIBRATION}; embedding and head 8 bits.",
        f"Speed: `Decoder.prefill` of random tokens, the step of the last token through the own graph "
        f"included; medians of {rounds} rounds in turns in one process, ratio to the first row in the same "
        "round [95 %].",
        f"The prefill graph adds {graph / 1e6:.2f} MB to a bundle of {bundle.disk_bytes / 1e6:.1f} MB, "
        f"{added / 1e6:.0f} MB to the prepacked entry ({entry.bytes / 1e6:.0f} MB with it), and "
        f"{bundle.prefill_bytes / 1e6:.0f} MB of mapped weights to a process that uses it.",
        "Peak: of a process with prepacked weights, a prompt of 1024 tokens and a step, one thread; in "
        "parentheses what was heap at its end. Mapped pages are shared, and the kernel may drop them.",
        f"What runs by default where a device has it: {SHIPPED.name}; else the first row.",
        f"KL: over {AFTER} tokens after {FILLED} that the graph filled the cache with, mean of {WINDOWS} "
        "windows of held-out Wikipedia. That of the own graph from the original is the loss of 4 bits.",
    ]


if __name__ == "__main__":
    main()
