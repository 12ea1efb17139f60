"""MiniLM taught to tell good film reviews from bad, then cut and distilled: how much accuracy is kept.

    python -m edgepress.benchmarks.checks.sentiment WORK RESULTS --snippets FILE

``FILE`` is movieReviewSnippets_GroundTruth.txt: snippets, each rated by twenty people (Hutto, Gilbert 2014,
VADER), in the archive inside the source package of vaderSentiment 3.3.2. A snippet is good where its mean
rating is above zero. For each seed the encoder and a linear head on its embedding are trained on one part of
them; the student is cut from that encoder by ``layers`` and learns its embeddings of the same snippets by
``distill``, without a label. The head stays as it is. Accuracy is that on the other part.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ...compress.models import resolve
from ...compress.module_names import stored_name
from ...compress.pooling import Pooling, pooling_of
from ...compress.torch_model import load_model
from ...compress.training.precision import autocast
from ...compress.weights import WeightSource
from ...runtime.tokenizer import Tokenizer
from ...storage import read_json, write_json
from ..checkpoint_subject import CheckpointSubject
from .model_chain import Chain
from .table import write_table

COMMAND = "python -m edgepress.benchmarks.checks.sentiment WORK benchmarks/results --snippets FILE"
TESTED, STEPS, BATCH, SHARPNESS = 2600, 250, 32, 16.0
LENGTH, SAMPLES = 48, 5000
SHARES = {"half": 0.5, "third": 0.34, "sixth": 0.17}
LEARN = {"pass": "distill", "losses": {"embedding": 1.0, "states": 1.0}, "epochs": 4}
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
    """Train encoder and head, and write both: a checkpoint, and ``head.npy [hidden + 1]`` in it."""
    torch.manual_seed(seed)
    source, tokenizer, pooling = WeightSource.open(path), Tokenizer.open(path), pooling_of(path)
    model = load_model(path).train()
    head = nn.Linear(source.anatomy.hidden_size, 1)
    groups = [{"params": model.parameters(), "lr": 6e-5}, {"params": head.parameters(), "lr": 5e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [6e-5, 5e-3], total_steps=STEPS)
    draw = random.Random(seed)
    for _ in range(STEPS):
        rows = draw.sample(learned, BATCH)
        ids = tokenizer.encode_batch([text for text, _ in rows], max_length=LENGTH)
        with autocast("auto", torch.device("cpu")):
            embedded = embeddings(model, pooling, ids)
        wanted = torch.tensor([float(label) for _, label in rows])
        logits = head(SHARPNESS * embedded.float()).squeeze(-1)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    write(source, model, head, target)


def embeddings(model: nn.Module, pooling: Pooling, ids: list[list[int]]) -> Tensor:
    """``[rows, hidden]`` of texts as token ids."""
    longest = max(map(len, ids))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    return pooling.apply(model(input_ids=padded, attention_mask=mask).last_hidden_state, mask)


def write(source: WeightSource, model: nn.Module, head: nn.Linear, target: Path) -> None:
    """The checkpoint of ``source`` with the weights of ``model``, and the head."""
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source.reader.path, part)
    tensors = {stored_name(source.anatomy, name): value for name, value in model.named_parameters()}
    kept = source.reader.read([name for name in source.reader.shapes if name not in tensors])
    found = {name: value.detach().contiguous() for name, value in (kept | tensors).items()}
    save_file(found, part / "model.safetensors", {"format": "pt"})
    np.save(part / "head.npy", torch.cat([head.weight[0], head.bias]).detach().numpy())
    part.rename(target)


def accuracy(path: Path, head: NDArray[np.float32], tested: Snippets) -> float:
    """The share of ``tested`` that the model at ``path`` and the head get right."""
    subject = CheckpointSubject(resolve(str(path)), threads=1)
    embedded = subject.embeddings([text for text, _ in tested])
    logits = SHARPNESS * embedded @ head[:-1] + head[-1]
    return float(((logits > 0) == np.array([label for _, label in tested], dtype=bool)).mean())


def one_seed(chain: Chain, seed: int, names: list[str], parts: tuple[Snippets, Snippets]) -> None:
    """Teacher and students of a seed, each with its accuracy in a file, unless they are there."""
    learned, tested = parts
    teacher = chain.work / f"teacher-{seed}"
    if not teacher.exists():
        fine_tune(resolve(chain.model).path, learned, seed, teacher)
    head = np.load(teacher / "head.npy")
    for name in ("teacher", *names):
        checkpoint, file = chain.work / f"{name}-{seed}", chain.work / f"{name}-{seed}.json"
        if file.exists():
            continue
        seconds = 0.0
        if not checkpoint.exists():
            options = f"--calibration {chain.work}/text.txt --samples {SAMPLES} --length {LENGTH} -q"
            recipe = f"-r {chain.work}/{name}.yaml"
            seconds, _ = chain.call(f"compress {teacher} {recipe} {options} -o {checkpoint}", threads=1)
        found = {"accuracy": accuracy(checkpoint, head, tested), "cpu_seconds": seconds}
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
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
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
