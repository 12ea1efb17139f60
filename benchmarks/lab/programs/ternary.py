"""A small Llama trained here in float32, and the same as a ternary model: quality, size, speed and energy.

    python -m edgepress.benchmarks.lab.programs.ternary WORK RESULTS [--wide] [--tokens COUNT] [--untimed]

The model begins with random weights (:mod:`.small_llama`) and learns the Wikipedia demo corpus by ``distill``
with ``cross_entropy``; ``ternary`` begins with what it learned, which is also its teacher, and so does its
4-bit twin, ``gptq``. Every step is the command line a user would type; its output stays in WORK, so that an
interrupted check goes on where it was. Bits per byte are those of held-out articles. Layers of 256 channels
are so small that reading fewer bytes gains nothing; ``--wide`` has 512.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from ....devices.energy import find_meter
from ....storage import read_json, sha256_file, write_json
from ...records.energy_record import Energy
from ...records.record import Measurement, learning_curves, read
from .decode_energy import decode_energies, described, joules
from .interleaved import NEW_TOKENS, PROMPT, Rates, described_turns, kept_rates, ratio
from .model_chain import WINDOWS, Chain, Variant
from .results_page import write_table
from .small_llama import Shape, save_small_llama
from .small_models import shown, value

COMMAND = "python -m edgepress.benchmarks.lab.programs.ternary WORK benchmarks/lab/results"
TEXT = "--calibration wikipedia --samples 1920 --length 256"
AGAIN = "--calibration wikipedia --samples 560 --length 256"
SCRATCH_TOKENS, TOKENS, ROUNDS = 400_000, 120_000, 10
STEPS = {"batch_tokens": 2048, "piece_tokens": 2048, "measurements": 4}
SCRATCH = {"pass": "distill", "losses": {"cross_entropy": 1.0}, "embedding": True, "learning_rate": 0.03}
TERNARY = {"pass": "ternary", "group_size": 128, "learning_rate": 0.01}
TWIN = {"pass": "gptq", "scheme": "W4A16-g128"}
LABELS = {"float": "float32", "ternary": "ternary, 2 bits", "w4": "W4A16-g128 gptq"}
HEADER = [
    "model",
    "bits per byte",
    "gap",
    "KL",
    "bundle MB",
    "of the float's",
    "decode × float [95 %]",
    "decode × 4-bit twin [95 %]",
    "J a token",
    "CPU s",
]


SMALL, WIDE = Shape(), Shape(hidden=512, ffn=1536, blocks=5)


def trained(work: Path, tokens: int, shape: Shape = SMALL, text: str = TEXT) -> Chain:
    """The chain of the model that was trained from scratch, which is trained now where it was not; ``text``
    are the options of what it reads.
    """
    name = "scratch" if shape == SMALL else f"scratch-{shape.hidden}"
    name += "" if text == TEXT else f"-{tokens}"
    chain = Chain(name, work / "ternary", None, quick=False)
    random, chain.model = chain.work / "random", str(chain.work / "float")
    if not random.exists():
        save_small_llama(random, shape)
    if not Path(chain.model).exists():
        recipe = written(chain, "scratch", {**slowed(SCRATCH, shape), **STEPS, "tokens": tokens})
        options = f"-r {recipe} {text} -o {chain.model} -q"
        seconds, rss = chain.call(f"compress {random} {options}", threads=1)
        write_json(chain.work / "float.cost.json", {"cpu_seconds": seconds, "rss_mb": rss})
    return chain


def slowed(options: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """``options`` with the rate that suits the width: theirs is for :data:`SMALL`, and wider takes less."""
    return {**options, "learning_rate": options["learning_rate"] * SMALL.hidden / shape.hidden}


def written(chain: Chain, name: str, options: dict[str, Any]) -> Path:
    """The recipe of one pass as a file."""
    file = chain.work / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "passes": [options]}), encoding="utf-8")
    return file


def variants(chain: Chain, shape: Shape, tokens: int) -> list[Variant]:
    """The float model, the ternary one and the twin."""
    ternary = written(chain, "ternary", {**slowed(TERNARY, shape), **STEPS, "tokens": tokens})
    twin = written(chain, "w4", TWIN)
    return [
        Variant("", "original", None),
        Variant("", "ternary", f"-r {ternary} {AGAIN}"),
        Variant("", "w4", f"-r {twin} --calibration wikipedia --samples 64 --length 256"),
    ]


def lines_of(chain: Chain, variant: Variant, runs: list[Path]) -> list[Measurement]:
    """What was measured of a variant's bundle."""
    identity = sha256_file(chain.bundle(variant) / "manifest.json")
    return [line for line in read(runs) if line.subject.manifest_sha256 == identity]


def size(bundle: Path) -> int:
    """Bytes of a bundle."""
    return sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())


def speeds(chain: Chain, chosen: list[Variant]) -> Rates:
    """Rates of all bundles, timed in turns unless that was done."""
    bundles = {one.name: chain.bundle(one) for one in chosen}
    return kept_rates(chain.work / "speed.json", bundles, ROUNDS)


def ratio_of(rates: Rates, variant: Variant, other: Variant) -> str:
    """How many times as fast as ``other`` the bundle decodes, where both were timed."""
    if variant is other or not rates:
        return "–"
    found = ratio(rates[variant.name]["decode"], rates[other.name]["decode"])
    return "–" if found is None else found[1]


def table_rows(
    chain: Chain, chosen: list[Variant], rates: Rates, energies: dict[str, Energy]
) -> list[list[str]]:
    """A row for each."""
    rows, first, twin = [], chosen[0], chosen[-1]
    for variant in chosen:
        lines = lines_of(chain, variant, [chain.quality(variant)])
        base = lines_of(chain, first, [chain.quality(first)])
        bits, before = value(lines, "bits_per_byte"), value(base, "bits_per_byte")
        cost = chain.work / f"{'float' if variant is first else variant.name}.cost.json"
        rows.append(
            [
                LABELS["float" if variant is first else variant.name],
                shown(bits, 4),
                "–" if variant is first or bits is None or before is None else f"{bits / before - 1:+.1%}",
                shown(None if variant is first else value(lines, "kl"), 4),
                f"{size(chain.bundle(variant)) / 1e6:.2f}",
                f"{size(chain.bundle(variant)) / size(chain.bundle(first)):.3f}",
                ratio_of(rates, variant, first),
                ratio_of(rates, variant, twin),
                joules(energies.get(variant.name)),
                f"{read_json(cost)['cpu_seconds']:.0f}",
            ]
        )
    return rows


def notes(chain: Chain, shape: Shape, tokens: int, energies: dict[str, Energy]) -> list[str]:
    """What stands below the table."""
    told = [
        f"Model: Llama, {shape.blocks} blocks of {shape.hidden} channels, feed-forward {shape.ffn}, "
        f"{shape.vocabulary} tokens, {shape.parameters / 1e6:.1f} M parameters, trained here from random "
        f"weights on {SCRATCH_TOKENS:,} tokens of package text ({TEXT}); the ternary model learned from "
        f"{tokens:,} more ({AGAIN}).",
        f"Targets: a gap of at most 5 %, a size of at most 0.2, decoding at least as fast as the twin. "
        f"Bits per byte: {WINDOWS} windows of 512 tokens of held-out articles.",
        f"×: all bundles in turns, {described_turns(ROUNDS)}: prompts of {PROMPT} tokens, {NEW_TOKENS} "
        "decoded.",
        *([described(energies)] if energies else []),
        "Embedding and head are W8A16-g32 in every bundle. CPU s: of `edgepress compress`, one thread.",
    ]
    for name in ("float", "ternary"):
        for curve in learning_curves(read_json(chain.work / name / "edgepress.json")["steps"]):
            pairs = zip(curve.tokens, curve.losses, strict=True)
            fell = ", ".join(f"{at:,} → {loss:.3f}" for at, loss in pairs)
            told.append(f"{name}, {curve.measure} of a held-out token by tokens learned from: {fell}.")
    return told


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--wide", action="store_true", help="512 channels and 17.8 M parameters, not 256 and 5.8 M"
    )
    parser.add_argument("--tokens", type=int, default=TOKENS, help="that the ternary model learns from")
    parser.add_argument("--untimed", action="store_true", help="leave out speed and energy")
    given = parser.parse_args()
    shape = WIDE if given.wide else SMALL
    chain = trained(given.work, SCRATCH_TOKENS, shape)
    chosen = variants(chain, shape, given.tokens)
    rates: Rates = {}
    energies: dict[str, Energy] = {}
    if not given.untimed:
        rates = speeds(chain, chosen)
        energies = decode_energies({one.name: chain.bundle(one) for one in chosen}, find_meter("cpu"))
    rows = table_rows(chain, chosen, rates, energies)
    command = f"{COMMAND} --tokens {given.tokens}"
    command += "".join(f" --{name}" for name in ("wide", "untimed") if getattr(given, name))
    title = "A small Llama in float32, ternary and in 4 bits"
    page = given.results / ("ternary-wide.md" if given.wide else "ternary.md")
    write_table(page, title, command, HEADER, rows, notes(chain, shape, given.tokens, energies))


if __name__ == "__main__":
    main()
