"""MiniLM with half of its layers and fewer: cut, then distilled on text that packages carry; and its speed.

    python -m edgepress.benchmarks.lab.programs.distillation WORK RESULTS [--untimed]

The text are sentences of the Wikipedia demo corpus and single words of it: embeddings are used for both. No
word pair and no rating is in it but by chance, as words. Every step is the command line a user would type;
its output stays in WORK, so that an interrupted check goes on where it was. ``--untimed`` leaves out the
speed, which needs a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import re
from pathlib import Path

import yaml

from ....compress.text.corpus import texts_from
from ....storage import read_json, sha256_file, write_atomic
from ...records.record import learning_curves, read
from .model_chain import Chain, Variant
from .results_page import write_table
from .small_models import ratio_of, shown, value

COMMAND = "python -m edgepress.benchmarks.lab.programs.distillation WORK benchmarks/lab/results"
SENTENCES, WORDS, LENGTH = 4000, 4000, 48
CUT = {"pass": "layers", "keep": 0.5}
LEARN = {"pass": "distill", "losses": {"states": 1.0, "cosine": 1.0}, "epochs": 4}
RECIPES = {
    "half": [CUT],
    "half-distilled": [CUT, LEARN],
    "third-distilled": [{**CUT, "keep": 0.34}, LEARN],
    "sixth-distilled": [{**CUT, "keep": 0.17}, LEARN],
}
LABELS = {
    "fp32": "original",
    **{
        name: " → ".join(
            f"layers (keep {one['keep']})" if "keep" in one else str(one["pass"]) for one in passes
        )
        for name, passes in RECIPES.items()
    },
}
HEADER = [
    "passes",
    "block parameters",
    "cosine",
    "WordSim-353 ρ",
    "kept",
    "SimLex-999 ρ",
    "kept",
    "× speed of the original [95 %]",
    "CPU s",
]
KEPT, FASTER = 0.95, 1.8


def text(most_sentences: int = SENTENCES, most_words: int = WORDS) -> str:
    """The text to learn from: a sentence or a word a paragraph, drawn with a fixed seed."""
    whole = " ".join(" ".join(texts_from("wikipedia")).split())
    sentences = sorted({part.strip() for part in re.split(r"(?<=[.!?])\s+", whole) if 30 < len(part) < 240})
    words = sorted(set(re.findall(r"\b[a-z]{3,12}\b", whole)))
    draw = random.Random(0)
    parts = draw.sample(sentences, min(most_sentences, len(sentences)))
    return "\n\n".join(parts + draw.sample(words, min(most_words, len(words)))) + "\n"


def variants(work: Path, samples: int) -> list[Variant]:
    """The original, the cut model, and the cut model that learned."""
    options = f"--calibration {work}/text.txt --samples {samples} --length {LENGTH}"
    made = [
        Variant("", name, f"-r {work}/{name}.yaml {options}", timed=name == "half-distilled")
        for name in RECIPES
    ]
    return [Variant("", "fp32", None), *made]


def prepared(chain: Chain) -> list[Variant]:
    """Write the text and the recipes."""
    write_atomic(chain.work / "text.txt", text().encode())
    for name, passes in RECIPES.items():
        (chain.work / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "passes": passes}))
    samples = len((chain.work / "text.txt").read_text().strip().split("\n\n"))
    return variants(chain.work, samples)


def table_row(chain: Chain, variant: Variant, original: list[float | None], *, timed: bool) -> list[str]:
    """One row, measured now where it is not; ``original`` has its two rank correlations."""
    runs = [chain.quality(variant)]
    if timed and variant.timed and variant.options is not None:
        runs.append(chain.speed(variant, chain.bundle(Variant("", "fp32", None))))
    identity = sha256_file(chain.bundle(variant) / "manifest.json")
    lines = [line for line in read(runs) if line.subject.manifest_sha256 == identity]
    scores = [value(lines, f"spearman_{name}") for name in ("wordsim353", "simlex999")]
    kept = [
        "–" if one is None or other is None else f"{one / other:.1%}"
        for one, other in zip(scores, original or scores, strict=True)
    ]
    cost = chain.work / f"{variant.name}.cost.json"
    return [
        LABELS[variant.name],
        shown(None if variant.options is None else block_share(chain, variant), 2),
        shown(value(lines, "cosine"), 4),
        shown(scores[0], 3),
        kept[0],
        shown(scores[1], 3),
        kept[1],
        ratio_of(lines, "sentences_per_second"),
        f"{read_json(cost)['cpu_seconds']:.0f}" if cost.exists() else "–",
    ]


def block_share(chain: Chain, variant: Variant) -> float:
    """Blocks of a variant over those of the original, which are all of one size."""
    removed = read_json(chain.work / variant.name / "edgepress.json")["steps"][0]["details"]["removed"]
    left = int(read_json(chain.work / variant.name / "config.json")["num_hidden_layers"])
    return left / (left + len(removed))


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--untimed", action="store_true", help="leave out the speed")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(RECIPES), default=list(RECIPES))
    given = parser.parse_args()
    chain = Chain("minilm", given.work, None, quick=False)
    chosen = [one for one in prepared(chain) if one.name in ("fp32", *given.only)]
    base = read([chain.quality(chosen[0])])
    original = [value(base, f"spearman_{name}") for name in ("wordsim353", "simlex999")]
    rows = [table_row(chain, variant, original, timed=not given.untimed) for variant in chosen]
    only = "" if given.only == list(RECIPES) else f" --only {' '.join(given.only)}"
    command = COMMAND + only + (" --untimed" if given.untimed else "")
    title = "MiniLM with half of its layers"
    write_table(given.results / "distill-minilm.md", title, command, HEADER, rows, notes(chain, given.only))


def notes(chain: Chain, names: list[str]) -> list[str]:
    """What stands below the table."""
    told = [
        f"Target: at least {KEPT:.0%} of both rank correlations kept, at least {FASTER} × as fast.",
        f"Text: up to {SENTENCES} sentences and {WORDS} single words of the Wikipedia demo corpus.",
        "Cosine: to the original's embeddings of held-out sentences. CPU s: of `edgepress compress`.",
        "A row or a speed that was left out of the command was not measured.",
    ]
    for name in names:
        steps = read_json(chain.work / name / "edgepress.json")["steps"]
        removed = steps[0]["details"]["removed"]
        told.append(f"{name}: without blocks {removed} of 6, chosen and mended by `layers`.")
        for curve in learning_curves(steps):
            pairs = zip(curve.tokens, curve.losses, strict=True)
            fell = ", ".join(f"{at:,} → {loss:.4f}" for at, loss in pairs)
            told.append(f"{name}: {curve.measure} of a held-out token by tokens learned from: {fell}.")
    return told


if __name__ == "__main__":
    main()
