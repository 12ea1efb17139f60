"""Do slices name what is there? Noise in one place of a decoder at a time: the input embeddings of one
script's tokens, that of one profession, and one head. The table that logits are made with stays as it was.

    python -m edgepress.benchmarks.lab.known_harm.planted_harm WORK [--every N] [--cases NAMES]

Each copy of SmolLM2 is measured by the slice that has a group for what was harmed; of the head, one that
looks for what followed the same token before (an induction head, Olsson et al. 2022, arXiv 2209.11895), that
is rows which repeat themselves, among four kinds. A killed run goes on where it was.
"""

import argparse
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ....compress.model.models import resolve
from ....compress.text.corpus import read_corpus
from ....files.storage import write_json
from ....runtime.text.tokenizer import Tokenizer
from ...quality.subgroups.items import GroupText
from ...quality.subgroups.slice_table import UNITS, number, shown_p
from ...records.subjects import open_subject
from ..programs.slice_table import measure
from ..study.page import write_table

MODEL = "smollm2"
EMBEDDING, LOGITS = "model.embed_tokens.weight", "lm_head.weight"
BLOCK, HEAD, HEADS = 18, 6, 9  # its attention to what followed the same token before is 0.92
PROFESSION = "nurse"
ROWS, WORDS, TOKENS = 40, 12, 49_152

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Planted:
    """``plant`` harms weights, and the group of the slice must be named for it."""

    what: str
    slice: str
    group: str
    plant: Callable[[Weights, Tokenizer], None]


def _greek(weights: Weights, tokenizer: Tokenizer) -> None:
    rows = [place for place in range(TOKENS) if _is_greek(tokenizer.decode([place]))]
    _noise_on_input(weights, rows, 1.0)


def _is_greek(text: str) -> bool:
    signs = text.strip()
    return bool(signs) and all("\u0370" <= sign < "\u0400" or "\u1f00" <= sign < "\u2000" for sign in signs)


def _profession(weights: Weights, tokenizer: Tokenizer) -> None:
    (place,) = tokenizer.encode(f" {PROFESSION}", special=False)
    _noise_on_input(weights, [place], 2.0)


def _head(weights: Weights, _: Tokenizer) -> None:
    output = weights[f"model.layers.{BLOCK}.self_attn.o_proj.weight"]
    width = output.shape[1] // HEADS
    _noise(output.T, list(range(HEAD * width, (HEAD + 1) * width)), 2.0)


def _noise_on_input(weights: Weights, rows: list[int], size: float) -> None:
    """Of a model whose logits are made with its embedding, that stays for them."""
    weights[LOGITS] = weights[EMBEDDING].clone()
    _noise(weights[EMBEDDING], rows, size)


def _noise(weight: torch.Tensor, rows: list[int], size: float) -> None:
    """Add noise of ``size`` standard deviations of some ``rows`` of ``weight`` to them, in place."""
    drawn = np.random.default_rng(0).normal(size=(len(rows), weight.shape[1]))
    weight[rows] += torch.tensor(size * float(weight[rows].std()) * drawn, dtype=weight.dtype)


CASES = {
    "greek": Planted(
        "one standard deviation on the input embeddings of Greek letters",
        "languages",
        "Greek (monotonic)",
        _greek,
    ),
    "nurse": Planted(f"two on the input embedding of “{PROFESSION}”", "professions", PROFESSION, _profession),
    "head": Planted(
        f"two on the output of head {HEAD} of block {BLOCK}, an induction head",
        "tasks",
        "repeats itself",
        _head,
    ),
}


def kinds_of_rows() -> list[GroupText]:
    """Rows of four kinds, as many of each: words said twice, sums, spelled words, and Wikipedia."""
    articles = read_corpus("wikipedia", split="held-out").texts()
    known = [word for word in dict.fromkeys(" ".join(articles).split()) if word.isalpha() and word.islower()]
    draw = np.random.default_rng(0)
    made: dict[str, Callable[[int], str]] = {
        "repeats itself": lambda n: " ".join(2 * draw.choice(known, WORDS).tolist()),
        "sums": lambda n: " ".join(f"{a} + {b} = {a + b}." for a, b in draw.integers(2, 50, (4, 2)).tolist()),
        "spelling": lambda n: " ".join(
            f"{word}: {'-'.join(word)}." for word in draw.choice(known, 3).tolist()
        ),
        "wikipedia": lambda n: articles[n % len(articles)],
    }
    return [GroupText(name, make(n), f"{name} {n}") for name, make in made.items() for n in range(ROWS)]


def copy_of_model(target: Path, change: Callable[[Weights, Tokenizer], None]) -> None:
    """Write the model to ``target``, its weights after ``change``; a whole one that is there stays."""
    source, part = resolve(MODEL).path, target.with_name(f"{target.name}.part")
    if target.exists():
        return
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(source / "model.safetensors")
    change(weights, Tokenizer.open(source))
    if LOGITS in weights:
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        write_json(part / "config.json", {**config, "tie_word_embeddings": False})
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    part.rename(target)


def measured(work: Path, every: int, cases: list[str]) -> Iterator[tuple[Planted, dict[str, Any]]]:
    """Each case with its line of measurements."""
    original = None
    for name, case in ((name, CASES[name]) for name in cases):
        line = work / f"{name}.slices.json"
        if not line.is_file():
            copy_of_model(work / name, case.plant)
            original = original or open_subject(MODEL, threads=1)
            found = measure(work / name, original, [case.slice], every, kinds_of_rows())
            line.write_text(json.dumps(found), encoding="utf-8")
        yield case, json.loads(line.read_text(encoding="utf-8"))


def row(case: Planted, line: dict[str, Any]) -> list[str]:
    """What was named, beside the group that loses most after it."""
    (one,) = (found for found in line["slices"] if found["name"] == case.slice)
    first, second = sorted(one["groups"], key=lambda group: -float(group["harm"]))[:2]
    unit, worst = one["unit"], line["worst"]
    return [
        case.what,
        "nothing" if worst is None else f"{worst['group']} ({worst['slice']})",
        "yes" if worst is not None and worst["group"] == case.group else "no",
        f"{number(first['harm'], unit)} {UNITS[unit]}",
        number(first["others"], unit),
        shown_p(first["p"]),
        f"{second['group']}: {number(second['harm'], unit)}, p {shown_p(second['p'])}",
        str(one["items"]),
    ]


def main() -> None:
    """Measure what is not there yet, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=4, help="of the articles, one in so many")
    parser.add_argument("--cases", default=",".join(CASES), help="names with commas")
    parser.add_argument("--page", type=Path, default=Path("benchmarks/lab/results/slices.md"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = [row(case, line) for case, line in measured(given.work, given.every, given.cases.split(","))]
    header = ["noise", "named", "as planted", "loss", "of the others", "corrected p", "next", "items"]
    module = "edgepress.benchmarks.lab.known_harm.planted_harm"
    options = ["--every", str(given.every), "--cases", given.cases]
    command = shlex.join(["python", "-m", module, "WORK", *options])
    title = "SmolLM2-135M: planted noise"
    write_table(given.page, title, command, header, rows, [])


if __name__ == "__main__":
    main()
