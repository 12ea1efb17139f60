"""MiniLM in 8 and 4 bits: which recipe keeps its embeddings where they were.

    python -m edgepress.benchmarks.lab.programs.ptq_minilm WORK RESULTS [--only NAME …]

Every checkpoint is made by the command line a user would type and stays in WORK with its quality, so that an
interrupted check goes on where it was. A row that was left out is not in the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ....compress.api import plan_model
from ....storage import read_json, write_json
from ...quality.validate import validate_bundle
from .model_chain import Chain
from .ptq_rows import Pass, Row
from .results_page import write_table

MODEL, SENTENCES = "minilm", 128
SAMPLES, LENGTH = 256, 128
CALIBRATION = f"--calibration wikipedia --samples {SAMPLES} --length {LENGTH}"
COMMAND = "python -m edgepress.benchmarks.lab.programs.ptq_minilm WORK benchmarks/lab/results"
SETS = {"spearman_wordsim353": "WordSim-353", "spearman_simlex999": "SimLex-999"}
# How far a correlation may be from the original's.
TARGETS = {8: 0.002, 4: 0.01}

Quality = dict[str, dict[str, float]]


def four_bits(scheme: str) -> dict[str, list[Pass]]:
    """The recipes that are compared at one scheme, by name."""
    gptq = {"pass": "gptq", "scheme": scheme}
    learned = {"pass": "autoround", "scheme": scheme, "iterations": 50}
    return {
        "rtn": [{"pass": "rtn", "scheme": scheme}],
        "gptq": [gptq],
        "gptq-corrected": [{**gptq, "sequential": True, "correction": 1.0}],
        "autoround": [learned],
        "autoround-tune": [learned, {"pass": "tune"}],
        "best": [{**learned, "iterations": 100}, {"pass": "tune", "epochs": 4}],
    }


def rows() -> list[Row]:
    """All rows, the widest first."""
    smooth = {"pass": "smoothquant", "quantize": False}
    gptq = {"pass": "gptq", "scheme": "W8A8"}
    found = [
        Row("w8a8-rtn", [{"pass": "w8a8"}]),
        Row("w8a8-smoothquant", [{"pass": "smoothquant"}]),
        Row("w8a8-gptq", [gptq]),
        Row("w8a8-smooth-gptq", [smooth, gptq]),
        Row("w8a8-smooth-gptq-tune", [smooth, gptq, {"pass": "tune"}]),
    ]
    for size in (64, 32):
        named = four_bits(f"W4A16-g{size}").items()
        found += [Row(f"w4-g{size}-{name}", passes) for name, passes in named]
    return found


def bits(row: Row) -> int:
    """Of the weights, by the row's name."""
    return int(row.name[1])


def measured(chain: Chain, row: Row) -> Quality:
    """Each metric of a row and of the original, made and measured if it is not known."""
    checkpoint, path = chain.work / row.name, chain.work / f"{row.name}.quality.json"
    if not checkpoint.exists():
        recipe = chain.work / f"{row.name}.yaml"
        recipe.write_text(yaml.safe_dump({"name": row.name, "passes": row.passes}), encoding="utf-8")
        predicted = plan_model(MODEL, recipe=str(recipe), samples=SAMPLES, length=LENGTH).seconds
        command = f"compress {chain.model} -r {recipe} {CALIBRATION} -o {checkpoint} -q"
        seconds, rss = chain.call(command, threads=1)
        cost = {"cpu_seconds": seconds, "rss_mb": rss, "predicted_seconds": predicted}
        write_json(chain.work / f"{row.name}.cost.json", cost)
    if not path.exists():
        line = validate_bundle(checkpoint, chain.model, sentences=SENTENCES, threads=1)
        original = (line.compare or {})["original"]
        write_json(
            path,
            {
                name: {"row": one.value, "original": original[name]["value"]}
                for name, one in line.metrics.items()
            },
        )
    found: Quality = read_json(path)
    return found


def costs(chain: Chain, row: Row) -> list[str]:
    """CPU seconds, those that were predicted, and peak resident megabytes of making a row."""
    path = chain.work / f"{row.name}.cost.json"
    if not path.exists():
        return ["–", "–", "–"]
    cost = read_json(path)
    return [f"{cost[name]:.0f}" for name in ("cpu_seconds", "predicted_seconds", "rss_mb")]


def table_row(row: Row, quality: Quality) -> list[str]:
    """The cells of a row, but for its costs."""
    changes = [quality[name]["row"] - quality[name]["original"] for name in SETS]
    cells = [f"{quality['cosine']['row']:.4f}"]
    for name, change in zip(SETS, changes, strict=True):
        cells += [f"{quality[name]['row']:.4f}", f"{change:+.4f}"]
    target = TARGETS[bits(row)]
    verdict = "met" if max(map(abs, changes)) <= target else "missed"
    if verdict == "missed" and min(changes) >= -target:
        verdict = "met (better)"
    return [row.label, *cells, f"{target:g}: {verdict}"]


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[row.name for row in rows()])
    arguments = parser.parse_args()
    chain = Chain(MODEL, arguments.work, None, quick=False)
    chosen = [row for row in rows() if arguments.only is None or row.name in arguments.only]
    filled = [table_row(row, measured(chain, row)) + costs(chain, row) for row in chosen]
    header = ["recipe", "cosine"]
    for name in SETS.values():
        header += [name, "change"]
    notes = [
        "Model: all-MiniLM-L6-v2; calibrated with "
        f"{CALIBRATION}. Cosine: between a row's and the original's embeddings of {SENTENCES} held-out "
        "paragraphs, the mean. WordSim-353, SimLex-999: Spearman's correlation of the cosine of two words' "
        "embeddings with people's ratings; change: from the original's.",
        "Target: neither correlation further than this from the original's; better: none is so far below it, "
        "one is above it by more.",
        "CPU s and peak RSS MB: of the whole process `edgepress compress`, one thread, beside other work; "
        "predicted: what `--dry-run` says beforehand.",
    ]
    header += ["target", "CPU s", "predicted s", "peak RSS MB"]
    options = f" --only {' '.join(arguments.only)}" if arguments.only else ""
    write_table(
        arguments.results / "ptq-minilm.md",
        "MiniLM in 8 and 4 bits after training",
        COMMAND + options,
        header,
        filled,
        notes,
    )


if __name__ == "__main__":
    main()
