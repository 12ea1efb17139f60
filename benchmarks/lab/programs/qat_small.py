"""Quantization-aware training beside the best rounding, at 3 and 2 bits, on the small Llama trained here.

    python -m edgepress.benchmarks.lab.programs.qat_small WORK RESULTS [--tokens COUNT] [--rate RATE]
        [--threads COUNT] [--only NAME …] [--text FILE … --samples COUNT] [--taught COUNT] [--blocks COUNT]
        [--again COUNT …] [--written FILE … --learned COUNT] [--page NAME]

The model is that of :mod:`.ternary`, in the same WORK, or with ``--taught`` one that read so many tokens of
the text that is learned from here. A budget of tokens that does something at 2 bits takes hours of a CPU on
SmolLM2-135M, and minutes here. Every step is the command line a user would type; its output stays in WORK, so
that an interrupted check goes on where it was. A model that reads the 400,000 tokens of the demo corpus often
learns them by heart; files of ``--text`` join them. With ``--blocks`` one block after the other learns from
so many sequences before all of them do together. Text that is read a third time is learned by heart: files of
``--written``, which the float model wrote (:mod:`.written_text`), join that of the last row. With ``--again``
it goes on from its codes for so many tokens in another order, once for each count.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....compress.text.corpus import texts_from
from ....storage import read_json, write_atomic
from .model_chain import WINDOWS, Chain
from .results_page import write_table
from .small_models import shown, value
from .ternary import SCRATCH_TOKENS, trained
from .training import curves, described
from .unstructured import Row, measure

COMMAND = "python -m edgepress.benchmarks.lab.programs.qat_small WORK benchmarks/lab/results"
SAMPLES, LENGTH = 800, 512
FEW = {"samples": 64}  # what works in closed form needs no more
TOKENS, TUNED, WON = 2_400_000, 50_000, 0.6
# All there are: the teacher is asked every time, as its answers would take 32 kB a token.
TOP_K = 4096
BITS = (3, 2)
# What is already near needs smaller steps.
RATES = {3: 1e-3, 2: 2e-3}
# Of a model of ``--taught``. Codes that are near a boundary go back and forth as long as there are steps: the
# rate has to end at zero. With a model that has read little, an embedding that learns makes other text worse.
TAUGHT: dict[str, Any] = {"schedule": "two_stages", "embedding": True}
# The longer weights learn, the more of them lie at the boundaries of their codes, where every step turns some
# over: after blocks have learned, few have far to go, and scales are to learn as fast as ever.
AFTER_BLOCKS: dict[str, Any] = {"codes_rate": 0.3}
# A block's own output tells its codes more than what comes of it at the end, with less noise.
BLOCKS: dict[str, Any] = {
    "pass": "block_qat",
    "epochs": 2,
    "learning_rate": 5e-3,
    "distance": "fisher",
    "fisher_tokens": 131_072,
}
TOLD = (
    "only",
    "text",
    "samples",
    "rate",
    "threads",
    "taught",
    "blocks",
    "again",
    "written",
    "learned",
    "page",
)
HEADER = ["scheme", "passes", "KL", "ppl", "top-1", "of the best rounding's KL removed", "CPU s"]


def rows(
    tokens: int,
    options: dict[str, Any],
    rate: float | None,
    blocks: int | None = None,
    again: Sequence[int] = (),
) -> dict[str, list[Row]]:
    """By scheme: roundings after training, and the best of them followed by training with ``options`` and the
    learning rate ``rate``, or that for its bits; before it that of each block, from ``blocks`` sequences,
    after it others with as many tokens as ``again`` says, each in another order.
    """
    learned: dict[str, Any] = {
        "pass": "qat",
        "tokens": tokens,
        "batch_tokens": 2048,
        "piece_tokens": 2048,
        "measurements": 8,
        "top_k": TOP_K,
        "cache": False,
    }
    tune = {**learned, "pass": "tune", "tokens": TUNED, "learning_rate": 2e-3, "measurements": 4}
    found = {}
    for bits in BITS:
        scheme = {"scheme": f"W{bits}A16-g64", **FEW}
        gptq = {"pass": "gptq", "refinements": 2, **scheme}
        corrected = {**gptq, "correction": 1, **({} if blocks is None else {"samples": SAMPLES})}
        long = {**learned, **options, "learning_rate": rate or RATES[bits]}
        first: tuple[dict[str, Any], ...] = (corrected,)
        if blocks is not None:
            # The same samples make one sweep of the two: in another, nothing is left to learn.
            read = {**scheme, "samples": blocks}
            first, long = ({"pass": "gptq", **read}, {**BLOCKS, **read}), {**long, **AFTER_BLOCKS}
        more = [{**long, "tokens": count, "seed": seed} for seed, count in enumerate(again, 1)]
        found[f"W{bits}-g64"] = [
            Row(f"qat-w{bits}-gptq", (gptq,)),
            Row(f"qat-w{bits}-tune", (gptq, tune)),
            Row(f"qat-w{bits}-awq-tune", ({"pass": "awq", "quantize": False, **scheme}, gptq, tune)),
            Row(f"qat-w{bits}-corrected-tune", (corrected, tune)),
            Row(f"qat-w{bits}-qat", (*first, long, *more)),
        ]
    return found


def calibration(work: Path, name: str, texts: Sequence[Path], samples: int) -> str:
    """The options of what is learned from: the demo corpus, and the files ``texts`` where there are some, all
    of them in the folder ``name``.
    """
    source = "wikipedia"
    if texts:
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "wikipedia.txt", "\n\n".join(texts_from("wikipedia")).encode())
        for text in texts:
            shutil.copyfile(text, folder / f"{text.stem}.txt")
        source = str(folder)
    return f"--calibration {source} --samples {samples} --length {LENGTH}"


def table_rows(
    chain: Chain, scheme: str, found: list[Row], options: tuple[str, str], threads: int, notes: list[str]
) -> list[list[str]]:
    """A row for each, measured now where it is not; the notes get the curves. ``options`` name the text, the
    second of them that of the last row.
    """
    last = found[-1].name
    lines = {row.name: measure(chain, row, options[row.name == last], threads=threads) for row in found}
    kl = {name: value(one, "kl") for name, one in lines.items()}
    best = min((one for name, one in kl.items() if one is not None and name != last), default=None)
    filled = []
    for row in found:
        mine = kl[row.name]
        trained_row = row.name == last and mine is not None and best is not None
        won = f"{1 - mine / best:.1%}" if trained_row and mine is not None and best is not None else "–"
        cost = read_json(chain.work / f"{row.name}.cost.json")
        filled.append(
            [
                scheme,
                described(row.passes),
                shown(mine, 4),
                shown(value(lines[row.name], "perplexity"), 2),
                shown(value(lines[row.name], "top1_agreement"), 3),
                won,
                f"{cost['cpu_seconds']:.0f}",
            ]
        )
        notes += curves(row, chain)
    return filled


def _written_told(written: Sequence[Path], count: int) -> list[str]:
    if not written:
        return []
    names = " and ".join(text.name for text in written)
    return [
        f"The last row learned from {count} sequences of that text and {names}, which the float model wrote: "
        f"`python -m edgepress.benchmarks.lab.programs.written_text FLOAT {names} --after` "
        "the files of that text `--seed 1`."
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="budget of qat")
    schemes = [f"W{bits}-g64" for bits in BITS]
    parser.add_argument("--rate", type=float, help=f"learning rate of qat [default: by bits, {RATES}]")
    parser.add_argument("--threads", type=int, default=1, help="of what is not there yet")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=schemes, default=schemes)
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files to learn from besides")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="sequences to learn from")
    parser.add_argument("--taught", type=int, metavar="COUNT", help="tokens of that text that the model read")
    parser.add_argument("--blocks", type=int, metavar="COUNT", help="sequences that blocks learn from first")
    parser.add_argument(
        "--again", type=int, nargs="*", default=[], metavar="COUNT", help="tokens of further runs of qat"
    )
    parser.add_argument(
        "--written", type=Path, nargs="*", default=[], help="files that the last row reads too"
    )
    parser.add_argument("--learned", type=int, default=SAMPLES, help="sequences that it then learns from")
    parser.add_argument("--page", default="qat-small", help="name of the results file")
    return parser


def _told(given: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The options that differ from their defaults, as they were typed; of files the names."""
    told = ""
    for name in TOLD:
        value = getattr(given, name)
        if value != parser.get_default(name):
            words = value if isinstance(value, list) else [value]
            told += f" --{name} {' '.join(one.name if isinstance(one, Path) else str(one) for one in words)}"
    return told


def main() -> None:
    """The command line of this check."""
    parser = _parser()
    given = parser.parse_args()
    options = longer = calibration(given.work, "text", given.text, given.samples)
    if given.written:
        longer = calibration(given.work, "longer", [*given.text, *given.written], given.learned)
    if given.taught is None:
        chain = trained(given.work, SCRATCH_TOKENS)
    else:
        chain = trained(given.work, given.taught, text=options)
    filled: list[list[str]] = []
    curves_told: list[str] = []
    own = {} if given.taught is None else TAUGHT
    for scheme, found in rows(given.tokens, own, given.rate, given.blocks, given.again).items():
        if scheme in given.only:
            filled += table_rows(chain, scheme, found, (options, longer), given.threads, curves_told)
    learned_from = ["the Wikipedia demo corpus", *(text.name for text in given.text)]
    taught = f"{SCRATCH_TOKENS:,} tokens, see ternary.md"
    if given.taught is not None:
        taught = f"{given.taught:,} tokens of the text that is learned from"
    notes = [
        f"Target: training removes at least {WON:.0%} of the KL that the best rounding leaves.",
        f"Model: the Llama of 5.8 M parameters that was trained here ({taught}). KL: KL(float ‖ row), "
        f"mean over {WINDOWS} windows of 512 tokens of held-out Wikipedia. "
        f"Learned from: {given.samples} sequences of {LENGTH} tokens of {' and '.join(learned_from)}.",
        *_written_told(given.written, given.learned),
        "CPU s: of the whole process `edgepress compress`, all threads together.",
        *curves_told,
    ]
    bits = " and ".join(str(bits) for bits in BITS if f"W{bits}-g64" in given.only)
    title = f"A small Llama at {bits} bits: training after the best rounding"
    command = f"{COMMAND} --tokens {given.tokens}{_told(given, parser)}"
    write_table(given.results / f"{given.page}.md", title, command, HEADER, filled, notes)


if __name__ == "__main__":
    main()
