"""The plan of every pass against what it takes: peak memory, bytes written, time.

    python -m edgepress.benchmarks.lab.programs.plan_accuracy WORK [RESULTS] [--cases rtn,gptq]

Each pass compresses a Llama of 67 million random weights in a child process of its own, on one thread. What
is measured stays in WORK, so that a run that was stopped goes on; the page holds all that is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from ....storage import write_atomic
from ..makers.random_llama import Size, save_random_llama
from ..study.child import run_module
from ..study.page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.plan_accuracy WORK"
SIZE = Size(768, 2048, 6)
TEXT = ("--text", "wikipedia", "--samples", "16", "--length", "256")
_LEARN = "tokens: 4096, batch_tokens: 1024, measurements: 2"
_ROUNDED = "{pass: rtn, scheme: W4A16-g64}"
# By name, the passes of a recipe, or a packaged one.
CASES = {
    "rtn": f"[{_ROUNDED}]",
    "w8a8": "[{pass: smoothquant, scheme: W8A8}]",
    "hqq": "[{pass: hqq, scheme: W4A16-g64}]",
    "gptq": "[{pass: gptq, scheme: W4A16-g64}]",
    "gptq-corrected": "[{pass: gptq, scheme: W4A16-g64, correction: 0.5, refinements: 2}]",
    "awq": "[{pass: awq, scheme: W4A16-g64}]",
    "autoround": "[{pass: autoround, scheme: W4A16-g64, iterations: 20}]",
    "block_qat": "[{pass: block_qat, scheme: W4A16-g64, epochs: 1}]",
    "qat": f"[{{pass: qat, scheme: W4A16-g64, {_LEARN}}}]",
    "tune": f"[{_ROUNDED}, {{pass: tune, {_LEARN}}}]",
    "distill": f"[{{pass: distill, {_LEARN}}}]",
    "ternary": f"[{{pass: ternary, {_LEARN}}}]",
    "prune": "[{pass: prune, score: wanda, sparsity: 0.5}]",
    "sparsegpt": "[{pass: sparsegpt, sparsity: 0.5}]",
    "alps": "[{pass: alps, sparsity: 0.5}]",
    "narrow": "[{pass: narrow, keep: 0.7}]",
    "width": "[{pass: width, keep: 0.7}]",
    "layers": "[{pass: layers, keep: 0.7}]",
    "vocabulary": "[{pass: vocabulary, size: 24000}]",
    "rotate": "[{pass: rotate}]",
    "kv_cache": f"[{_ROUNDED}, {{pass: kv_cache}}]",
    "allocate": "[{pass: allocate, bits: 3.5, schemes: [W3A16-g64, W4A16-g64], using: {pass: rtn}}]",
    "best": "best",
}


@dataclass(frozen=True)
class Line:
    """A pass: planned and measured bytes of memory, bytes of the result, and seconds."""

    case: str
    planned_memory: int
    memory: int
    planned_size: int
    size: int
    planned_seconds: float
    cpu_seconds: float


def run_case(work: Path, name: str) -> Line:
    """Plan a case and run it.

    Raises:
        SystemExit: it failed.
    """
    recipe, out = work / f"{name}.yaml", work / "out"
    passes = CASES[name]
    recipe.write_text(f"passes: {passes}\n", encoding="utf-8")
    chosen = passes if passes.isidentifier() else str(recipe)
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["compress", str(work / "model"), "-r", chosen, *TEXT, "--threads", "1"]
    command = [sys.executable, "-m", "edgepress", *arguments, "--dry-run", "--json"]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    cost = run_module("edgepress", [*arguments, "-o", str(out)], {"OMP_NUM_THREADS": "1"})
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return Line(
        name,
        plan["peak_memory"],
        cost.peak_rss,
        plan["result_bytes"],
        size,
        plan["seconds"],
        cost.cpu_seconds,
    )


def row(line: Line) -> list[str]:
    """A line of the table; each ratio is what was measured over what was planned."""
    return [
        line.case,
        f"{line.memory / 1e6:.0f}",
        f"{line.memory / line.planned_memory:.2f}",
        f"{line.size / 1e6:.1f}",
        f"{line.size / line.planned_size:.3f}",
        f"{line.cpu_seconds:.0f}",
        f"{line.cpu_seconds / line.planned_seconds:.2f}",
    ]


def write_page(work: Path, results: Path) -> None:
    """The table of all cases that were measured."""
    files = [work / f"{name}.json" for name in CASES]
    lines = [Line(**json.loads(file.read_bytes())) for file in files if file.exists()]
    write_table(
        results / "plan-accuracy.md",
        "The plan of every pass against what it takes",
        COMMAND,
        ["pass", "peak MB", "÷ plan", "written MB", "÷ plan", "CPU s", "÷ plan"],
        [row(line) for line in lines],
        [
            f"A Llama of {SIZE.hidden} hidden, {SIZE.ffn} in the MLP, {SIZE.blocks} blocks and a vocabulary "
            "of 49,152, random bfloat16 weights; 16 × 256 tokens of Wikipedia, one thread.",
            "Written are the bytes of the weights. A plan's time is a range, from half to twice its seconds.",
        ],
        page="How good a plan is",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path, nargs="?", default=Path("benchmarks/lab/results"))
    parser.add_argument("--cases", default=",".join(CASES), help="names, with commas between them")
    wanted = parser.parse_args()
    if not (wanted.work / "model").exists():
        save_random_llama(wanted.work / "making", SIZE)
        (wanted.work / "making").rename(wanted.work / "model")
    for name in wanted.cases.split(","):
        record = wanted.work / f"{name}.json"
        if not record.exists():
            line = run_case(wanted.work, name)
            write_atomic(record, json.dumps(asdict(line), indent=1).encode())
    write_page(wanted.work, wanted.results)


if __name__ == "__main__":
    main()
