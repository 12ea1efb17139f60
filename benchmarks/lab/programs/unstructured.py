"""Sparse SmolLM2: what each pruning pass costs the model, alone and followed by 4-bit GPTQ.

    python -m edgepress.benchmarks.lab.programs.unstructured WORK RESULTS [--page NAME] [--only NAME …]
        [--place PLACE --peers NAME …]

Every step is the command line a user would type, on 16 × 512 tokens of calibration text; its output stays in
WORK, so that an interrupted check goes on where it was. A row that was left out is not in the table. With a
PLACE (see :mod:`edgepress.benchmarks.lab.peers`) llm-compressor prunes on the same tokens.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ....storage import read_json, write_json
from ...records.record import Measurement, read
from ..peers.pruners import llm_compressor
from ..peers.workspace import Place
from .model_chain import WINDOWS, Chain
from .pruning_peers import calibration_tokens, measure_peer, peer_name
from .results_page import write_table
from .small_models import CALIBRATION, shown, value

COMMAND = "python -m edgepress.benchmarks.lab.programs.unstructured WORK benchmarks/lab/results"
SAMPLES, LENGTH = 16, 512  # those of CALIBRATION
HALF, TWO_OF_FOUR = {"sparsity": 0.5}, {"pattern": "2:4"}
GPTQ = {"pass": "gptq", "scheme": "W4A16-g64"}
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"pass": "magnitude"},
    "wanda": {"pass": "wanda"},
    "sparsegpt": {"pass": "sparsegpt", "fit_steps": 0},
    "sparsegpt-fit": {"pass": "sparsegpt", "sequential": True},
    "alps": {"pass": "alps", "sequential": True},
    "sparsegpt-allocated": {"pass": "allocate_sparsity", "using": {"pass": "sparsegpt", "sequential": True}},
    "alps-allocated": {"pass": "allocate_sparsity", "using": {"pass": "alps", "sequential": True}},
    "alps-corrected": {"pass": "alps", "sequential": True, "correction": 1},
}


@dataclass(frozen=True)
class Row:
    """One row: its name is that of its files; ``passes`` are those of its recipe."""

    name: str
    passes: tuple[dict[str, Any], ...]

    @property
    def label(self) -> list[str]:
        """What the table shows: the passes, and what is sparse."""
        first = {key: entry for key, entry in self.passes[0].items() if key not in HALF | TWO_OF_FOUR}
        options = ", ".join(f"{key} {entry}" for key, entry in first.items() if key != "pass")
        described = f"{first['pass']} ({options})" if options else first["pass"]
        return [described, self.passes[0].get("pattern", "50 %"), "W4-g64" if len(self.passes) > 1 else "–"]


def rows() -> list[Row]:
    """All rows: each method at 50 % and 2:4, the two best known ones also before GPTQ."""
    found = []
    for share, options in (("50", HALF), ("24", TWO_OF_FOUR)):
        for name, method in METHODS.items():
            if name.endswith("-allocated") and share == "24":
                continue  # a pattern is the same in every layer
            pruned = {**method, **options}
            found.append(Row(f"{name}-{share}", (pruned,)))
            if name in ("wanda", "sparsegpt", "alps"):
                found.append(Row(f"{name}-{share}-gptq", (pruned, GPTQ)))
    return found


def measure(
    chain: Chain,
    row: Row,
    calibration: str = CALIBRATION,
    held_out: str = f"--windows {WINDOWS}",
    threads: int = 1,
    **settings: Any,
) -> list[Measurement]:
    """Compress with ``threads`` and validate, each unless it is done; returns the lines about the row.
    ``settings`` join the recipe.
    """
    checkpoint, run = chain.work / row.name, chain.work / f"{row.name}.quality.jsonl"
    if not checkpoint.exists():
        recipe = chain.work / f"{row.name}.yaml"
        content = {"name": row.name, "passes": list(row.passes), **settings}
        recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
        command = f"compress {chain.model} -r {recipe} {calibration} -o {checkpoint} -q"
        seconds, rss = chain.call(command, threads=threads)
        write_json(chain.work / f"{row.name}.cost.json", {"cpu_seconds": seconds, "rss_mb": rss})
    if not run.exists():
        part = run.with_suffix(".part")
        part.unlink(missing_ok=True)
        options = f"{held_out} --threads 1 --record {part} -q"
        chain.call(f"validate {checkpoint} --against {chain.model} {options}")
        part.rename(run)
    return read([run])[-1:]


def table_row(chain: Chain, row: Row) -> list[str]:
    """What is known about a row, measured now where it is not."""
    lines = measure(chain, row)
    damage = read_json(chain.work / row.name / "edgepress.json")["steps"][-1].get("damage") or {}
    return _cells(chain, row.name, row.label, lines, damage)


def peer_row(chain: Chain, place: Place, variant: str) -> list[str]:
    """As :func:`table_row`, of what llm-compressor makes."""
    calibration = calibration_tokens(chain, SAMPLES, LENGTH)
    lines = measure_peer(chain, place, llm_compressor, variant, calibration, f"--windows {WINDOWS}")
    method, zeros = llm_compressor.VARIANTS[variant]
    label = [f"{llm_compressor.TITLE}: {method}", zeros, "–"]
    return _cells(chain, peer_name("llm_compressor", variant), label, lines, {})


def _cells(
    chain: Chain, name: str, label: list[str], lines: list[Measurement], damage: dict[str, Any]
) -> list[str]:
    cost = read_json(chain.work / f"{name}.cost.json")
    return [
        *label,
        shown(value(lines, "kl"), 3),
        shown(value(lines, "perplexity"), 1),
        shown(value(lines, "top1_agreement"), 3),
        shown(damage.get("kl"), 3),
        f"{cost['cpu_seconds']:.0f}",
        f"{cost['rss_mb']:.0f}",
    ]


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--page", default="pruning-smollm2", help="name of the results file")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[row.name for row in rows()])
    parser.add_argument("--place", type=Path, help="directory with the environments of other tools")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=list(llm_compressor.VARIANTS), default=[]
    )
    arguments = parser.parse_args()
    if arguments.peers and arguments.place is None:
        parser.error("--peers needs --place")
    chain = Chain("smollm2", arguments.work, None, quick=False)
    header = ["pass", "zeros", "then", "KL", "ppl", "top-1", "KL, calibration text", "CPU s", "peak RSS MB"]
    chosen = [row for row in rows() if arguments.only is None or row.name in arguments.only]
    told = f" --page {arguments.page}"
    told += f" --only {' '.join(arguments.only)}" if arguments.only else ""
    told += f" --place PLACE --peers {' '.join(arguments.peers)}" if arguments.peers else ""
    notes = [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: KL(original ‖ row), "
        f"mean over {WINDOWS} windows of 512 tokens of held-out Wikipedia; calibrated with {CALIBRATION}.",
        "KL, calibration text: of 512 tokens that the passes have seen. Where it is far below the other, the "
        "calibration text was learnt by heart.",
        "CPU s and peak RSS: of the whole process, one thread. llm-compressor prunes the same tokens with "
        "its own defaults; the quality of every row is measured by the same command.",
    ]
    filled = [table_row(chain, row) for row in chosen]
    filled += [peer_row(chain, Place(arguments.place), variant) for variant in arguments.peers]
    title = "SmolLM2-135M with zeros: every pruning pass, alone and before 4-bit GPTQ"
    write_table(arguments.results / f"{arguments.page}.md", title, COMMAND + told, header, filled, notes)


if __name__ == "__main__":
    main()
