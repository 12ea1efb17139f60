"""Distillation and quantization-aware training beside other tools, on the same student, tokens and steps.

    python -m edgepress.benchmarks.lab.programs.trainers WORK RESULTS --place PLACE [--only NAME …]

The teacher is the small Llama of :mod:`.ternary`, in the same WORK; the student to distil is the same with
half of its blocks, cut by ``layers``; what is trained at 4 bits is the teacher itself. Every tool runs alone
in a fresh process of its own environment (``python -m edgepress.benchmarks.lab.peers --place PLACE setup
NAME``), sees every sequence once, and is judged by one evaluation. One that cannot run is listed with its
error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....storage import read_json, write_json
from ..peers.children import work
from ..peers.environments import trouble
from ..peers.workspace import Place, trainers
from .model_chain import WINDOWS, Chain
from .results_page import write_table
from .small_models import shown
from .ternary import SCRATCH_TOKENS, trained
from .unstructured import Row, measure

COMMAND = "python -m edgepress.benchmarks.lab.programs.trainers WORK benchmarks/lab/results --place PLACE"
SEQUENCES, LENGTH, ROWS = 256, 256, 8
HALF = Row("half", ({"pass": "layers", "keep": 0.5},))
HEADER = ["task", "tool", "how", "learning rate", "KL", "ppl", "top-1", "CPU s", "peak RSS MB"]


@dataclass(frozen=True)
class Arm:
    """One tool at one task, with a learning rate in the tool's own terms."""

    peer: str
    variant: str
    learning_rate: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.peer.replace('_', '-')}-{self.variant}-{self.learning_rate:g}"


# Each in its own terms, of all that share a task equally many: the best of each is what counts.
RATES: dict[tuple[str, str], tuple[float, ...]] = {
    ("edgepress_passes", "distill"): (2e-3, 4e-3, 6e-3, 8e-3),
    ("edgepress_passes", "states"): (2e-3, 4e-3, 6e-3, 8e-3),
    ("trl_gkd", "distill"): (1e-4, 2e-4, 3e-4, 5e-4),
    ("distillkit", "distill"): (1e-4, 2e-4, 3e-4, 5e-4),
    ("edgepress_passes", "w4"): (1e-3, 2e-3, 4e-3),
    ("torchao_qat", "w4"): (3e-5, 1e-4, 3e-4),
}
ARMS = tuple(Arm(peer, variant, rate) for (peer, variant), rates in RATES.items() for rate in rates)


def sequences(chain: Chain) -> Path:
    """The token sequences as a JSON file, made if it is not there."""
    from ....compress.text.calibration import calibration_from
    from ....runtime.text.tokenizer import Tokenizer

    target = chain.work / "sequences.json"
    if not target.exists():
        tokenizer = Tokenizer.open(chain.model)
        found = calibration_from(
            "wikipedia", tokenizer, kind="decoder", samples=SEQUENCES, length=LENGTH, seed=1
        )
        write_json(target, [row for batch in found.batches for row in batch.input_ids.tolist()])
    return target


def run(place: Place, chain: Chain, arm: Arm) -> dict[str, Any]:
    """Train and evaluate, unless that was done before."""
    target = chain.work / "trainers" / arm.name
    record, module = target / "made.json", trainers()[arm.peer]
    if record.exists():
        return dict(read_json(record))
    error = trouble(place, arm.peer, module)
    made: dict[str, Any] = {"error": error or ""}
    if not error:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        student = chain.model if arm.variant == "w4" else chain.work / HALF.name
        job = {
            "variant": arm.variant,
            "checkpoint": str(student),
            "teacher": chain.model,
            "calibration": str(sequences(chain)),
            "output": str(target),
            "rows": ROWS,
            "learning_rate": arm.learning_rate,
        }
        done = work(place, arm.peer, module, job, timeout=1200, threads=1)
        made = {"error": done.error, "cpu_s": done.cpu_s, "peak_rss_bytes": done.peak_rss_bytes}
        if done.answer is not None:
            made |= {"versions": done.answer["versions"], **judged(chain, target / "checkpoint")}
    target.mkdir(parents=True, exist_ok=True)
    write_json(record, made)
    return made


def judged(chain: Chain, checkpoint: Path) -> dict[str, float]:
    """KL, perplexity and top-1 agreement on held-out Wikipedia."""
    command = [sys.executable, "-m", "edgepress.benchmarks.lab.peers.evaluate", str(checkpoint), chain.model]
    command += [str(chain.work / "logits"), "--windows", str(WINDOWS), "--threads", "1"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout)["wikipedia"])


def table_row(arm: Arm, made: dict[str, Any]) -> list[str]:
    """A row: what was measured, or why nothing was."""
    module = trainers()[arm.peer]
    task = "W4-g64, trained" if arm.variant == "w4" else "half of the blocks, distilled"
    versions = made.get("versions", {})
    version = versions.get(module.DISTRIBUTIONS[0], "")
    head = [task, f"{module.TITLE} {version}".strip(), module.VARIANTS[arm.variant]]
    if made["error"]:
        error = " ".join(made["error"].split())[-200:]  # one line, for it is a cell of a table
        return [*head, f"{arm.learning_rate:g}", f"not run: {error}", "–", "–", "–", "–"]
    return [
        *head,
        f"{arm.learning_rate:g}",
        shown(made["kl"], 4),
        shown(made["perplexity"], 2),
        shown(made["top1_agreement"], 3),
        f"{made['cpu_s']:.0f}",
        f"{made['peak_rss_bytes'] / 2**20:.0f}",
    ]


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--place", type=Path, required=True, help="where the environments of peers are")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted({arm.peer for arm in ARMS}))
    given = parser.parse_args()
    chain, place = trained(given.work, SCRATCH_TOKENS), Place(given.place.absolute())
    before = measure(chain, HALF, "--calibration wikipedia --samples 64 --length 256")
    cut = {name: metric.value for name, metric in before[-1].metrics.items()}
    start = ["half of the blocks, distilled", "–", "before", "–"]
    start += [shown(cut["kl"], 4), shown(cut["perplexity"], 2), shown(cut["top1_agreement"], 3), "–", "–"]
    chosen = [arm for arm in ARMS if given.only is None or arm.peer in given.only]
    rows = [start, *(table_row(arm, run(place, chain, arm)) for arm in chosen)]
    notes = [
        f"Teacher: the Llama of 5.8 M parameters trained here (see ternary.md). {SEQUENCES} sequences of "
        f"{LENGTH} tokens of Wikipedia, each once, {ROWS} a step, the same for all; AdamW, a tenth of the "
        "steps to warm up, then a cosine, bfloat16 autocast. edgepress holds an eighth of them out and keeps "
        "the best state; its learning rate is in units of each parameter's own size.",
        f"KL(teacher ‖ row), mean over {WINDOWS} windows of 512 tokens of held-out Wikipedia. CPU s and peak "
        "RSS: of the whole process, one thread, imports and saving included. Of the learning rates of "
        "each the best counts.",
    ]
    only = f" --only {' '.join(given.only)}" if given.only else ""
    title = "Distillation and quantization-aware training beside other tools"
    write_table(given.results / "peers-trainers.md", title, COMMAND + only, HEADER, rows, notes)


if __name__ == "__main__":
    main()
