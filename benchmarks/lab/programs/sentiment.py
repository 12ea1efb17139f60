"""MiniLM taught to tell good film reviews from bad, then cut and distilled: how much accuracy is kept.

    python -m edgepress.benchmarks.lab.programs.sentiment WORK RESULTS --snippets FILE

``FILE`` is movieReviewSnippets_GroundTruth.txt: snippets, each rated by twenty people (Hutto, Gilbert 2014,
VADER), in the archive inside the source package of vaderSentiment 3.3.2. A snippet is good where its mean
rating is above zero. For each seed a BertForSequenceClassification is made of the encoder and trained on one
part of them; the student is cut from it by ``layers`` and learns the distribution of its labels on the same
snippets by ``distill``, without being told any. Accuracy is that on the other part.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ....compress.measure.precision import autocast
from ....compress.model.models import resolve
from ....runtime.text.tokenizer import Tokenizer
from ....storage import read_json, write_json
from ...records.checkpoint_subject import CheckpointSubject
from .model_chain import Chain
from .results_page import write_table

COMMAND = "python -m edgepress.benchmarks.lab.programs.sentiment WORK benchmarks/lab/results --snippets FILE"
TESTED, STEPS, BATCH = 2600, 250, 32
LABELS = ("bad", "good")
RATE, HEAD_RATE = 6e-5, 1e-3
LENGTH, SAMPLES = 48, 5000
SHARES = {"half": 0.5, "third": 0.34, "sixth": 0.17}
LEARN = {"pass": "distill", "losses": {"label_kl": 1.0, "states": 1.0}, "epochs": 4}
HEADER = ["model", "block parameters", "accuracy by seed", "mean", "kept", "CPU s a seed"]

Snippets = list[tuple[str, int]]


def snippets(file: Path) -> tuple[Snippets, Snippets]:
    """``(to learn from, to test on)``: texts with 1 for good and 0 for bad, split once and for all."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    found = {text.strip(): int(float(rating) > 0) for _, rating, text in rows if float(rating) != 0}
    shuffled = sorted(found.items())
    random.Random(0).shuffle(shuffled)
    return shuffled[TESTED:], shuffled[:TESTED]


def fine_tune(path: Path, learned: Snippets, seed: int, target: Path) -> None:
    """Write the encoder at ``path`` with a head, both trained, to ``target``."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        path, id2label=names, dtype=torch.float32
    ).train()
    tokenizer, draw = Tokenizer.open(path), random.Random(seed)
    encoder = list(model.bert.encoder.parameters()) + list(model.bert.embeddings.parameters())
    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    groups = [{"params": encoder, "lr": RATE}, {"params": head, "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, HEAD_RATE], total_steps=STEPS)
    for _ in range(STEPS):
        rows = draw.sample(learned, BATCH)
        ids, mask = padded(tokenizer.encode_batch([text for text, _ in rows], max_length=LENGTH))
        with autocast("auto", torch.device("cpu")):
            logits = model(input_ids=ids, attention_mask=mask).logits
        optimizer.zero_grad()
        wanted = torch.tensor([label for _, label in rows])
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    write(model, path, target)


def write(model: Any, path: Path, target: Path) -> None:
    """The checkpoint of ``model``, with the tokenizer of the one at ``path``."""
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    # Not what makes a sentence encoder of it.
    for file in (*path.glob("tokenizer*"), *path.glob("vocab.txt"), *path.glob("special_tokens_map.json")):
        shutil.copyfile(file, part / file.name)
    part.rename(target)


def padded(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask ``[rows, longest]``."""
    longest = max(map(len, ids))
    rows = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return rows, mask


def accuracy(path: Path, tested: Snippets) -> float:
    """The share of ``tested`` that the classifier at ``path`` gets right."""
    subject = CheckpointSubject(resolve(str(path)), threads=1)
    found = subject.label_logits([text for text, _ in tested]).argmax(axis=1)
    return float((found == np.array([label for _, label in tested])).mean())


def one_seed(chain: Chain, seed: int, names: list[str], parts: tuple[Snippets, Snippets]) -> None:
    """Teacher and students of a seed, each with its accuracy in a file, unless they are there."""
    learned, tested = parts
    teacher = chain.work / f"teacher-{seed}"
    if not teacher.exists():
        fine_tune(resolve(chain.model).path, learned, seed, teacher)
    for name in ("teacher", *names):
        checkpoint, file = chain.work / f"{name}-{seed}", chain.work / f"{name}-{seed}.json"
        if file.exists():
            continue
        seconds = 0.0
        if not checkpoint.exists():
            options = f"--calibration {chain.work}/text.txt --samples {SAMPLES} --length {LENGTH} -q"
            recipe = f"-r {chain.work}/{name}.yaml"
            seconds, _ = chain.call(f"compress {teacher} {recipe} {options} -o {checkpoint}", threads=1)
        found = {"accuracy": accuracy(checkpoint, tested), "cpu_seconds": seconds}
        write_json(file, found | {"blocks": read_json(checkpoint / "config.json")["num_hidden_layers"]})


def table_rows(chain: Chain, names: list[str], seeds: range) -> list[list[str]]:
    """A row for the teacher and for each student."""
    rows: list[list[str]] = []
    before: float | None = None
    for name in ("teacher", *names):
        found = [read_json(chain.work / f"{name}-{seed}.json") for seed in seeds]
        scores = [one["accuracy"] for one in found]
        mean = sum(scores) / len(scores)
        before = mean if before is None else before
        cost = sum(one["cpu_seconds"] for one in found) / len(found)
        share = found[0]["blocks"] / read_json(chain.work / "teacher-0" / "config.json")["num_hidden_layers"]
        told = " ".join(f"{score:.1%}" for score in scores)
        label = name if name == "teacher" else f"layers (keep {SHARES[name]}) → distill"
        rows.append([label, f"{share:.2f}", told, f"{mean:.1%}", f"{mean / before:.1%}", f"{cost:.0f}"])
    return rows


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--snippets", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(SHARES), default=list(SHARES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    chain = Chain("minilm", given.work / "sentiment", None, quick=False)
    parts = snippets(given.snippets)
    (chain.work / "text.txt").write_text("\n\n".join(text for text, _ in parts[0]), encoding="utf-8")
    for name in given.only:
        passes = [{"pass": "layers", "keep": SHARES[name]}, LEARN]
        (chain.work / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "passes": passes}))
    seeds = range(given.seeds)
    for seed in seeds:
        one_seed(chain, seed, given.only, parts)
    only = "" if given.only == list(SHARES) else f" --only {' '.join(given.only)}"
    notes = [
        "Target: at least 95% of the teacher's accuracy with at most half of its block parameters.",
        f"{len(parts[0])} snippets to learn from ({STEPS} steps of {BATCH} for the teacher, {SAMPLES} texts "
        f"for a student), {TESTED} others to test on; the same for all seeds, which decide head and order.",
        "CPU s: of `edgepress compress` at one thread.",
    ]
    title = "Film reviews: MiniLM fine-tuned, cut and distilled"
    rows = table_rows(chain, given.only, seeds)
    write_table(given.results / "distill-sentiment.md", title, COMMAND + only, HEADER, rows, notes)


if __name__ == "__main__":
    main()
