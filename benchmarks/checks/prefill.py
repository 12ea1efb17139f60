"""Prefill of SmolLM2 at 4 bits: the model's own graph, the prefill graph, and other ways to compute it.

    python -m edgepress.benchmarks.checks.prefill WORK [benchmarks/results] [--rounds 8] [--untimed]

The checkpoint, the bundle and its prepacked entry are made by the command line a user would type and stay in
WORK, as do the distances, after which ``--untimed`` stops. All variants are timed in turns in one process;
peaks of memory are those of processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compress.data.corpus import texts_from
from ...export.proof.distributions import divergence, log_softmax
from ...export.proof.drive import GraphDriver
from ...runtime import prefill as prefill_module
from ...runtime import prepacked
from ...runtime.bundle import Bundle
from ...runtime.decoder import Decoder
from ...runtime.load import load_graph
from ...runtime.prefill import Prefill
from ...runtime.remade import remake
from ...runtime.session import open_session
from ...storage import read_json, write_json
from ..held_out_text import measured_windows
from ..paired import compare_rates
from ..peak_memory import peak_rss
from ..subjects import open_subject
from .prefill_variants import VARIANTS
from .table import write_table

MODEL = "smollm2"
PROMPTS, THREADS = (128, 1024), (1, 2)
WINDOWS, FILLED, AFTER = 8, 256, 64
RECIPE = "name: w4\npasses:\n  - {pass: gptq, scheme: W4A16-g64, refinements: 2}\n"
CALIBRATION = "--calibration wikipedia --samples 16 --length 512"
COMMAND = "python -m edgepress.benchmarks.checks.prefill WORK benchmarks/results"
_PAUSE = 0.05  # seconds in which the threads of the variant before stop spinning


@dataclass(frozen=True)
class Variant:
    """A row: its name, which graph fills the cache, and how many tokens go through it at once."""

    name: str
    graph: str
    chunk: int


OWN = Variant("own graph, MatMulNBits 4-bit, chunks of 128", "own", 128)
SHIPPED = Variant("prefill graph, int8, chunks of 128", "int8", 128)
ROWS = (
    OWN,
    Variant("own graph, chunks of 256", "own", 256),
    SHIPPED,
    Variant("prefill graph, int8, chunks of 256", "int8", 256),
    Variant("prefill graph, int8, chunks of 512", "int8", 512),
    Variant("rows divided by their peaks, DynamicQuantizeMatMul, 256", "rows", 256),
    Variant("MatMulNBits 8-bit in blocks of 256, 256", "blocks", 256),
)


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


def filler(bundle: Bundle, work: Path, graph: str, threads: int) -> Any:
    """A session over the graph of a variant; None for the model's own."""
    if graph == "own":
        return None
    assert bundle.prefill is not None
    if graph == "int8":
        entry = prepacked.find(bundle)
        assert entry is not None
        return open_session(entry.prefill, threads=threads, config=prefill_module.CONFIG, optimize=False)
    weights = remake(bundle.path / bundle.prefill.file, bundle.graph, bundle.prefill.linears)
    folder = work / graph
    folder.mkdir(exist_ok=True)
    data = folder / f"{bundle.graph.name}.data"
    if bundle.weight_files and not data.exists():
        shutil.copyfile(bundle.graph.with_name(data.name), data)
    path = folder / "prefill.onnx"
    given = VARIANTS[graph](bundle.path / bundle.prefill.file, path, weights)
    return open_session(path, threads=threads, config=prefill_module.CONFIG, weights=given)


class Arms:
    """One decoder for each graph, over one session of the model's own."""

    def __init__(self, bundle: Bundle, work: Path, threads: int) -> None:
        session = load_graph(bundle, threads=threads)
        self.decoders = {}
        for graph in dict.fromkeys(variant.graph for variant in ROWS):
            found = filler(bundle, work, graph, threads)
            graphs = None if found is None else Prefill(lambda session=found: session)  # type: ignore[misc]
            if graphs is not None:
                graphs.session()
            self.decoders[graph] = Decoder(session, bundle.decoder, prefill_graph=graphs)

    def rate(self, variant: Variant, ids: Sequence[int]) -> float:
        """Tokens a second, once."""
        from ...runtime import decoder as decoder_module

        decoder_module.PREFILL_CHUNK = prefill_module.PREFILL_CHUNK = variant.chunk
        time.sleep(_PAUSE)
        start = time.perf_counter()
        self.decoders[variant.graph].prefill(ids)
        return len(ids) / (time.perf_counter() - start)


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


def quality(bundle: Bundle, work: Path) -> dict[str, list[str]]:
    """For each graph: KL from the original, and from the bundle without a prefill graph, over the tokens
    after a prompt that it filled the cache with.
    """
    original = open_subject(MODEL, threads=1)
    texts = texts_from("wikipedia", split="held-out")
    length = FILLED + AFTER
    ids = measured_windows(original.tokenizer, texts, count=WINDOWS, length=length, placement="spread")
    wanted = [log_softmax(original.logits(row[None])[0, FILLED:]) for row in ids]
    driver = GraphDriver(load_graph(bundle, threads=1))
    found = {}
    for graph in dict.fromkeys(variant.graph for variant in ROWS):
        session = filler(bundle, work, graph, 1)
        logits = [driver.logits(row[None], depth=FILLED, filler=session)[0] for row in ids]
        found[graph] = [log_softmax(row) for row in logits]
    own = found["own"]
    return {
        graph: [f"{_mean(wanted, rows):.4f}", "–" if graph == "own" else f"{_mean(own, rows):.4f}"]
        for graph, rows in found.items()
    }


def _mean(reference: list[NDArray[Any]], other: list[NDArray[Any]]) -> float:
    pairs = zip(reference, other, strict=True)
    return float(np.mean([divergence(theirs, ours).mean() for theirs, ours in pairs]))


def memory(bundle: Bundle, *arguments: str) -> str:
    """Megabytes: the peak of a process that runs the longer prompt and a step, and what of it was heap."""
    command = [sys.executable, "-m", "edgepress.benchmarks.checks.prefill", str(bundle.path), "--child"]
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
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/results"))
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
        write_json(kept, quality(bundle, wanted.work))
    judged = read_json(kept)
    if wanted.untimed:
        return
    peaks = {"own": memory(bundle, "--own"), "int8": memory(bundle)}
    before = os.getloadavg()[0]
    timed = speed(bundle, wanted.work, wanted.rounds)
    after = os.getloadavg()[0]
    rows = [
        [variant.name, *timed[variant], peaks.get(variant.graph, "–"), *judged[variant.graph]]
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
        [*_notes(bundle, wanted.rounds), f"Load average: {before:.1f} before the timing, {after:.1f} after."],
    )


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
