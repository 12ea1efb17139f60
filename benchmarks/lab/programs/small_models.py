"""The whole chain on the two demo models: size, quality, speed, memory of every scheme, and the cost of GPTQ.

    python -m edgepress.benchmarks.lab.programs.small_models WORK RESULTS [--wikitext FILE] [--quick]

Every step is the command line a user would type; its output stays in WORK, so that an interrupted check goes
on where it was. Raw measurements are kept beside the tables in RESULTS.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ....storage import read_json
from ...records.record import Measurement
from .model_chain import WINDOWS, Chain, Variant
from .parity_table import write_parity
from .results_page import write_table

CALIBRATION = "--calibration wikipedia --samples 16 --length 512"
MINMAX = "name: rtn-absmax\npasses:\n  - {pass: rtn, scheme: W4A16-g64, search: minmax}\n"

SMOLLM2 = (
    Variant("original, float32", "fp32", None),
    Variant("W8A8", "w8a8", "--scheme W8A8"),
    Variant("W4A16-g64 RTN, absmax / 7.5", "w4-rtn-absmax", "-r {work}/rtn-absmax.yaml", timed=False),
    Variant("W4A16-g64 GPTQ", "w4-gptq", f"--scheme W4A16 --group-size 64 {CALIBRATION}"),
    Variant("W3A16-g64 GPTQ", "w3-gptq", f"--scheme W3A16 --group-size 64 {CALIBRATION}"),
    Variant("W2A16-g64 GPTQ", "w2-gptq", f"--scheme W2A16 --group-size 64 {CALIBRATION}"),
)
MINILM = (Variant("original, float32", "fp32", None), Variant("W8A8", "w8a8", "--scheme W8A8"))


def value(lines: list[Measurement], metric: str, text: str = "") -> float | None:
    """The value of ``metric`` in the line whose workload names ``text``; None where it was not measured."""
    for line in lines:
        if metric in line.metrics and text in str(line.workload):
            return line.metrics[metric].value
    return None


def shown(number: float | None, digits: int) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if number is None else f"{number:.{digits}f}"


def ratio_of(lines: list[Measurement], metric: str) -> str:
    """The paired ratio against the interleaved original, with its interval."""
    for line in lines:
        entry: dict[str, Any] = (line.compare or {}).get("by_metric", {}).get(metric) or {}
        if entry.get("ratio_median") is not None:
            low, high = entry["ci95"]
            return f"{entry['ratio_median']:.2f} [{low:.2f}, {high:.2f}]"
    return "–"


def decoder_row(chain: Chain, variant: Variant, lines: list[Measurement]) -> list[str]:
    """A row of SmolLM2's table."""
    texts = ["wikipedia", *([chain.wikitext.name] if chain.wikitext else [])]
    row = [variant.label, shown(lines[0].subject.disk_bytes / 1e6, 1)]
    for text in texts:
        row += [
            shown(value(lines, "perplexity", text), 2),
            shown(value(lines, "kl", text), 4),
            shown(value(lines, "top1_agreement", text), 3),
        ]
    row += [
        shown(value(lines, "decode_tps"), 0),
        ratio_of(lines, "decode_tps"),
        shown(value(lines, "prefill_tps"), 0),
    ]
    rss = value(lines, "rss_peak_bytes")
    return [*row, shown(None if rss is None else rss / 1e6, 0)]


def encoder_row(variant: Variant, lines: list[Measurement]) -> list[str]:
    """A row of MiniLM's table."""
    rss = value(lines, "rss_peak_bytes")
    return [
        variant.label,
        shown(lines[0].subject.disk_bytes / 1e6, 1),
        shown(value(lines, "cosine"), 4),
        shown(value(lines, "spearman_wordsim353"), 4),
        shown(value(lines, "spearman_simlex999"), 4),
        shown(value(lines, "sentences_per_second"), 0),
        ratio_of(lines, "sentences_per_second"),
        shown(None if rss is None else rss / 1e6, 0),
    ]


def smollm2_table(chain: Chain, results: Path) -> None:
    """Tables 1 and 5 for the decoder."""
    measured = chain.measure(SMOLLM2)
    texts = ["Wiki", *(["WT2"] if chain.wikitext else [])]
    quality = [f"{text} {name}" for text in texts for name in ("ppl", "KL", "top-1")]
    header = [
        "scheme",
        "bundle MB",
        *quality,
        "decode tok/s",
        "× original [95 %]",
        "prefill tok/s",
        "peak RSS MB",
    ]
    rows = [decoder_row(chain, variant, lines) for variant, lines in measured.items()]
    kl = {v.name: value(lines, "kl", "wikipedia") for v, lines in measured.items()}
    notes = [
        "Model: SmolLM2-135M-Instruct, dequantized from Q4_1, rescaled off its grid. KL: KL(original ‖ row), "
        f"mean over {WINDOWS} windows of 512 tokens; Wiki: held-out Wikipedia, WT2: WikiText-2 test."
    ]
    if kl["w4-gptq"] and kl["w4-rtn-absmax"]:
        ratio = kl["w4-gptq"] / kl["w4-rtn-absmax"]
        verdict = "met" if ratio <= 0.53 else "missed"
        notes.append(f"KL of GPTQ over KL of RTN absmax / 7.5: {ratio:.3f} (target at most 0.53: {verdict}).")
    cost_file = chain.work / "w4-gptq.cost.json"
    if cost_file.exists():
        cost = read_json(cost_file)
        seconds, rss = cost["cpu_seconds"], cost["rss_mb"]
        verdict = "met" if seconds <= 118 else "missed"
        notes.append(
            f"`compress` with GPTQ, whole process at one thread: {seconds:.0f} CPU seconds "
            f"(target at most 118: {verdict}), peak RSS {rss:.0f} MB."
        )
    write_table(
        results / "smollm2.md", "SmolLM2-135M through the whole chain", command(chain), header, rows, notes
    )
    _parity_table(chain, SMOLLM2, results / "parity-smollm2.md")


def minilm_table(chain: Chain, results: Path) -> None:
    """Tables 2 and 5 for the encoder."""
    rows = [encoder_row(variant, lines) for variant, lines in chain.measure(MINILM).items()]
    header = ["scheme", "bundle MB", "cosine to original", "WordSim-353", "SimLex-999"]
    header += ["sentences/s", "× original [95 %]", "peak RSS MB"]
    notes = ["Model: all-MiniLM-L6-v2. Spearman correlation on both word-pair sets."]
    write_table(
        results / "minilm.md", "all-MiniLM-L6-v2 through the whole chain", command(chain), header, rows, notes
    )
    _parity_table(chain, MINILM, results / "parity-minilm.md")


def _parity_table(chain: Chain, variants: tuple[Variant, ...], path: Path) -> None:
    bundles = {variant.label: chain.bundle(variant) for variant in variants}
    write_parity(path, chain.model, bundles, command(chain))


def command(chain: Chain) -> str:
    """What made the tables."""
    options = (" --wikitext FILE" if chain.wikitext else "") + (" --quick" if chain.quick else "")
    return f"python -m edgepress.benchmarks.lab.programs.small_models WORK benchmarks/lab/results{options}"


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--wikitext", type=Path, help="WikiText-2 test as one text file")
    parser.add_argument("--quick", action="store_true", help="fewer timed blocks")
    parser.add_argument("--untimed", action="store_true", help="make bundles and judge quality, time nothing")
    parser.add_argument("--only", choices=["smollm2", "minilm"])
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.only != "smollm2":
        chain = Chain("minilm", arguments.work, None, arguments.quick)
        if arguments.untimed:
            [chain.quality(variant) for variant in MINILM]
        else:
            minilm_table(chain, arguments.results)
    if arguments.only != "minilm":
        chain = Chain("smollm2", arguments.work, arguments.wikitext, arguments.quick)
        (chain.work / "rtn-absmax.yaml").write_text(MINMAX)
        if arguments.untimed:
            [chain.quality(variant) for variant in SMOLLM2]
        else:
            smollm2_table(chain, arguments.results)


if __name__ == "__main__":
    main()
