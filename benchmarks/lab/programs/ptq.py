"""SmolLM2 in 8 bits and fewer: recipes of post-training quantization beside each other, mixed widths too.

    python -m edgepress.benchmarks.lab.programs.ptq WORK RESULTS [--text FILE] [--page NAME] [--only ROW …]

Every checkpoint is made by the command line a user would type, on 16 × 512 tokens of calibration text, and
stays in WORK with its cost and its quality, so that an interrupted check goes on where it was. A row that was
left out is not in the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import yaml

from ....compress.model.weights import WeightSource
from ....compress.text.corpus import texts_from
from ....storage import read_json, write_json
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...records.subjects import open_subject
from ..peers.evaluate import recorded
from .model_chain import WINDOWS, Chain
from .ptq_rows import Row, rows
from .results_page import write_table
from .small_models import CALIBRATION

MODEL, LENGTH = "smollm2", 512
COMMAND = "python -m edgepress.benchmarks.lab.programs.ptq WORK benchmarks/lab/results"
WITHIN = 0.005  # how much more perplexity W8A8 may have
METRICS = {"kl": 3, "top1_agreement": 3, "perplexity": 2}


class Evaluation:
    """The texts, and in ``folder`` the original's logits on them, computed once."""

    def __init__(self, text: Path | None, folder: Path) -> None:
        self.folder = folder
        self.texts = {"Wikipedia": texts_from("wikipedia", split="held-out")}
        if text is not None:
            self.texts[text.name] = texts_from(str(text))

    def measure(self, checkpoint: Path) -> dict[str, dict[str, float]]:
        """Every metric by text, and the original's perplexity."""
        subject = open_subject(checkpoint, threads=1)
        found = {}
        for name, texts in self.texts.items():
            ids = measured_windows(subject.tokenizer, texts, count=WINDOWS, length=LENGTH, placement="spread")
            original = recorded(MODEL, subject.tokenizer, ids, self.folder, 1)
            scores = score_windows(subject, original, ids)
            found[name] = {metric: float(scores[metric].of_subject().value or 0) for metric in METRICS}
            of_original = scores["perplexity"].of_original().value
            found[name]["original_perplexity"] = float(of_original or 0)
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


def perplexity_note(row: Row, quality: Mapping[str, Mapping[str, float]]) -> str | None:
    """How far the perplexity of int8 weights and activations is from the original's; None for other rows."""
    if not row.name.startswith("w8a8"):
        return None
    changes = {
        name: value["perplexity"] / value["original_perplexity"] - 1 for name, value in quality.items()
    }
    verdict = "met" if all(change <= WITHIN for change in changes.values()) else "missed"
    told = ", ".join(f"{100 * change:+.2f} % on {name}" for name, change in changes.items())
    return f"{row.label}: perplexity {told} (target at most {100 * WITHIN:+.1f} %: {verdict})."


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--text", type=Path, help="a second text to evaluate on")
    parser.add_argument("--page", default="ptq-smollm2", help="name of the results file")
    parser.add_argument("--title", default="SmolLM2-135M after training", help="of the results file")
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=[row.name for row in rows()])
    arguments = parser.parse_args()
    chain = Chain(MODEL, arguments.work, None, quick=False)
    evaluation = Evaluation(arguments.text, arguments.work / "logits")
    chosen = [row for row in rows() if arguments.only is None or row.name in arguments.only]
    for row in chosen:  # all of them first: a child's peak of memory begins with what this process holds
        made(chain, row)
    found = {row: measured(chain, row, evaluation) for row in chosen}
    filled = [table_row(chain, row, quality) for row, quality in found.items()]
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
    notes += filter(None, (perplexity_note(row, quality) for row, quality in found.items()))
    options = f" --text {arguments.text.name}" if arguments.text else ""
    options += f" --page {arguments.page}"
    options += f" --only {' '.join(arguments.only)}" if arguments.only else ""
    page = arguments.results / f"{arguments.page}.md"
    write_table(page, arguments.title, COMMAND + options, header, filled, notes)


if __name__ == "__main__":
    main()
