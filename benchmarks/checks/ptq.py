"""SmolLM2 in 4, 3 and 2 bits: every recipe of post-training quantization beside the others, and mixed widths.

    python -m edgepress.benchmarks.checks.ptq WORK RESULTS [--text FILE] [--only NAME …]

Every checkpoint is made by the command line a user would type, on 16 × 512 tokens of calibration text, and
stays in WORK with its cost and its quality, so that an interrupted check goes on where it was. A row that was
left out is not in the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ...compress.data.corpus import texts_from
from ...compress.weights import WeightSource
from ...storage import read_json, write_json
from ..accuracy import score_windows
from ..held_out_text import measured_windows
from ..subjects import open_subject
from .kv_cache import Remembered
from .model_chain import WINDOWS, Chain
from .ptq_rows import Row, rows
from .small_models import CALIBRATION
from .table import write_table

MODEL, LENGTH = "smollm2", 512
COMMAND = "python -m edgepress.benchmarks.checks.ptq WORK benchmarks/results"
METRICS = {"kl": 3, "top1_agreement": 3, "perplexity": 2}


class Evaluation:
    """The texts, and the original's logits on them."""

    def __init__(self, text: Path | None) -> None:
        self.texts = {"Wikipedia": texts_from("wikipedia", split="held-out")}
        if text is not None:
            self.texts[text.name] = texts_from(str(text))

    @cache  # noqa: B019 (one object a run)
    def original(self) -> Any:
        """The model that all rows are compared with."""
        return Remembered(open_subject(MODEL, threads=1))

    def windows(self, name: str) -> NDArray[np.int64]:
        """The windows of a text ``[windows, tokens]``."""
        tokenizer = self.original().tokenizer
        return measured_windows(tokenizer, self.texts[name], count=WINDOWS, length=LENGTH, placement="spread")

    def measure(self, checkpoint: Path) -> dict[str, dict[str, float]]:
        """Every metric by text."""
        subject = open_subject(checkpoint, threads=1)
        found = {}
        for name in self.texts:
            scores = score_windows(subject, self.original(), self.windows(name))
            found[name] = {metric: float(scores[metric].of_subject().value or 0) for metric in METRICS}
        return found


def made(chain: Chain, row: Row) -> Path:
    """The checkpoint of a row, made if it is not there."""
    checkpoint = chain.work / row.name
    if not checkpoint.exists():
        recipe = chain.work / f"{row.name}.yaml"
        recipe.write_text(yaml.safe_dump({"name": row.name, "passes": row.passes}), encoding="utf-8")
        command = f"compress {chain.model} -r {recipe} {CALIBRATION} -o {checkpoint} -q"
        seconds, rss = chain.call(command, threads=1)
        write_json(chain.work / f"{row.name}.cost.json", {"cpu_seconds": seconds, "rss_mb": rss})
    return checkpoint


def sizes(checkpoint: Path) -> tuple[float, float]:
    """Stored bits a weight of the linears, and megabytes of the whole checkpoint."""
    source = WeightSource.open(checkpoint)
    linears = list(source.anatomy.linears())
    weights = sum(linear.out_features * linear.in_features for linear in linears)
    stored = sum(source.stored_bytes(f"{linear.name}.weight") for linear in linears)
    return 8 * stored / weights, sum(map(source.stored_bytes, source.shapes)) / 1e6


def measured(chain: Chain, row: Row, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """The quality of a row by text, measured if it is not known."""
    path = chain.work / f"{row.name}.quality.json"
    if not path.exists():
        write_json(path, evaluation.measure(chain.work / row.name))
    found: dict[str, dict[str, float]] = read_json(path)
    return found


def table_row(chain: Chain, row: Row, quality: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The cells of a row."""
    path = chain.work / f"{row.name}.cost.json"
    # A check that was killed between a checkpoint and its cost cannot know it any more.
    cost = read_json(path) if path.exists() else None
    bits, megabytes = sizes(chain.work / row.name)
    cells = [f"{value[name]:.{digits}f}" for value in quality.values() for name, digits in METRICS.items()]
    cells += ["–", "–"] if cost is None else [f"{cost['cpu_seconds']:.0f}", f"{cost['rss_mb']:.0f}"]
    return [row.label, f"{bits:.2f}", f"{megabytes:.0f}", *cells]


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--text", type=Path, help="a second text to evaluate on")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in rows()])
    arguments = parser.parse_args()
    chain, evaluation = Chain(MODEL, arguments.work, None, quick=False), Evaluation(arguments.text)
    chosen = [row for row in rows() if arguments.only is None or row.name in arguments.only]
    for row in chosen:  # all of them first: a child's peak of memory begins with what this process holds
        made(chain, row)
    filled = [table_row(chain, row, measured(chain, row, evaluation)) for row in chosen]
    columns = [f"{metric}, {name}" for name in evaluation.texts for metric in ("KL", "top-1", "ppl")]
    header = ["recipe", "bits a weight", "MB", *columns, "CPU s", "peak RSS MB"]
    notes = [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: KL(original ‖ row) "
        f"in nats a token, mean over {WINDOWS} windows of {LENGTH} tokens, none of it calibrated with; "
        f"calibrated with {CALIBRATION}.",
        "Bits a weight: of the linears, scales and zero points counted as stored. MB: of the whole "
        "checkpoint, embedding (and the head that rotate takes off it) in float32.",
        "CPU s and peak RSS: of the whole process `edgepress compress`, one thread; other work ran beside "
        "it, so seconds are good to about a third.",
    ]
    options = f" --text {arguments.text.name}" if arguments.text else ""
    options += f" --only {' '.join(arguments.only)}" if arguments.only else ""
    title = "SmolLM2-135M in 4, 3 and 2 bits after training"
    write_table(arguments.results / "ptq-smollm2.md", title, COMMAND + options, header, filled, notes)


if __name__ == "__main__":
    main()
