"""How often slices raise an alarm where there is nothing: SmolLM2 beside itself, and beside its own bfloat16
copy, in a hundred seeds.

    python -m edgepress.benchmarks.lab.known_harm.false_alarms WORK [--every N] [--seeds N] [--slices NAMES]

Both models read everything once, and what they made of each item is kept in ``WORK``. A seed is a run on a
random half of what the groups share (articles, sentences, windows), with its own bootstrap.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....compress.text.corpus import read_corpus
from ....terminal.progress import Silent
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...quality.subgroups.group_harm import Items, harms
from ...quality.subgroups.items import load_slice
from ...quality.subgroups.kept_rows import KeptRows
from ...quality.subgroups.measure_slices import Measured, report
from ...quality.subgroups.significance import LEVEL
from ...quality.subgroups.slice_run import Given, SliceRun
from ...quality.token_damage import TokenDamage
from ...records.subjects import open_subject
from ..programs.slice_table import LENGTH, WINDOWS
from ..study.page import write_table
from .planted_harm import MODEL, copy_of_model, kinds_of_rows

NAMES = "languages,syntax,people,professions,positions,rare-words,tasks"
Slices = dict[str, Items]


def rounded(weights: dict[str, torch.Tensor], _: Any) -> None:
    """Every weight to the nearest bfloat16."""
    for name, weight in weights.items():
        weights[name] = weight.to(torch.bfloat16).to(weight.dtype)


def items_of(subject: Any, original: Any, kept: KeptRows, every: int, names: Sequence[str]) -> Slices:
    """What both models made of the items of each slice."""
    texts = read_corpus("wikipedia", split="held-out").texts()
    ids = measured_windows(original.tokenizer, texts, count=WINDOWS, length=LENGTH, placement="spread")
    damage: list[TokenDamage] = []
    score_windows(subject, original, ids, damage=damage)
    run, given = SliceRun(subject, original, kept, Silent()), Given(damage, kinds_of_rows(), every=every)
    found = {}
    for name in names:
        file = load_slice(name)
        assert file.of != "associations"  # of encoders
        found[name] = run.items(name, file, "decoder", given)
    return found


def in_seed(items: Items, seed: int) -> Items:
    """The items of a random half of the contents."""
    contents = list(dict.fromkeys(items.contents))
    drawn = np.random.default_rng(seed).permutation(len(contents))[: -(-len(contents) // 2)]
    half = {contents[place] for place in drawn}
    chosen = [place for place, content in enumerate(items.contents) if content in half]
    groups, shared = ([names[place] for place in chosen] for names in (items.groups, items.contents))
    extras = {name: sums[chosen] for name, sums in items.extras.items()}
    return Items(items.unit, groups, shared, items.harm[chosen], items.weight[chosen], extras)


def alarms(slices: Slices, seeds: int) -> list[dict[str, Any]]:
    """The report of each seed."""
    return [
        report([_measured(name, in_seed(items, seed), seed) for name, items in slices.items()], [])
        for seed in range(seeds)
    ]


def _measured(name: str, items: Items, seed: int) -> Measured:
    file = load_slice(name)
    return Measured(name, file.title, file.tested, items.unit, harms(items, seed))


def row(what: str, slices: Slices, seeds: int) -> list[str]:
    """Alarms in how many seeds, and in how many the corrected p alone would have raised one."""
    whole = report([_measured(name, items, 0) for name, items in slices.items()], [])
    found = alarms(slices, seeds)
    sure = [_least_p(one) < LEVEL for one in found]
    return [
        what,
        str(sum(len(items.harm) for items in slices.values())),
        str(whole["tests"]),
        "none" if whole["worst"] is None else whole["worst"]["group"],
        f"{sum(one['worst'] is not None for one in found)} of {seeds}",
        f"{sum(sure)} of {seeds}",
    ]


def _least_p(found: dict[str, Any]) -> float:
    tested = [group for one in found["slices"] for group in one["groups"] if group["p"] is not None]
    ps: list[float] = [group["p"] for group in tested]
    return min(ps)


def main() -> None:
    """Measure what is not kept yet, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=4, help="of the articles, one in so many")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--slices", default=NAMES, help="names with commas")
    parser.add_argument("--page", type=Path, default=Path("benchmarks/lab/results/slices.md"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    copy_of_model(given.work / "bfloat16", rounded)
    original: Any = open_subject(MODEL, threads=1)
    subjects: Sequence[tuple[str, str, Any]] = (
        ("itself", "itself", original),
        ("bfloat16", "its bfloat16 copy", open_subject(given.work / "bfloat16", threads=1)),
    )
    rows, names = [], given.slices.split(",")
    for name, what, subject in subjects:
        kept = KeptRows(given.work / f"{name}.jsonl", f"{name} {given.every}")
        rows.append(row(what, items_of(subject, original, kept, given.every, names), given.seeds))
    header = [
        "the original and",
        "items",
        "tests",
        "named on all items",
        "seeds with an alarm",
        "with p < 5 %",
    ]
    options = ["--every", str(given.every), "--seeds", str(given.seeds), "--slices", given.slices]
    module = "edgepress.benchmarks.lab.known_harm.false_alarms"
    command = shlex.join(["python", "-m", module, "WORK", *options])
    write_table(given.page, "SmolLM2-135M: false alarms", command, header, rows, [])


if __name__ == "__main__":
    main()
