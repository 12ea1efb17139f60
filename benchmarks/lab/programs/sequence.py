"""A small T5 trained here, half of its layers cut, and the student taught by what the teacher writes.

    python -m edgepress.benchmarks.lab.programs.sequence WORK RESULTS

The task is to write a word by what is left of it without vowels (:mod:`.small_t5`). The teacher learns it
from pairs; ``distill`` with ``student_layers`` cuts the student and lets it learn the teacher's answers to
shortened words alone. Beside it stand the same student as it was cut, and one that learned from as many pairs
in the loop that trained the teacher. Words are measured that no model has seen.
What is made stays in WORK, so that an interrupted check goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ....compress.model.torch_model import load_model
from ....compress.model.weights import WeightSource
from ....compress.train.students.shallow_student import shallow_source
from ....runtime.text.tokenizer import Tokenizer
from ....storage import read_json, write_json
from .model_chain import Chain
from .results_page import write_table
from .small_t5 import Shape, save_small_t5, shortened, words

COMMAND = "python -m edgepress.benchmarks.lab.programs.sequence WORK benchmarks/lab/results"
STEPS, BATCH, RATE = 2000, 64, 2e-3
SAMPLES, EPOCHS, LENGTH, ANSWER = 8000, 8, 32, 32
TESTED = 1000
KEPT = 2  # layers of each stack of the student
LEARN: dict[str, Any] = {
    "pass": "distill",
    "student_layers": [KEPT, KEPT],
    "beams": 4,
    "answer_tokens": ANSWER,
    "epochs": EPOCHS,
    "batch_tokens": 512,
    "piece_tokens": 512,
    "learning_rate": 0.02,
    "measurements": 4,
}
LABELS = {
    "teacher": "teacher",
    "cut": "student as it was cut",
    "pairs": "student, trained on the pairs",
    "distilled": "student, distill with sequence",
}
HEADER = [
    "model",
    "layers",
    "parameters",
    "MB",
    "words right",
    "words as the teacher's",
    "cross-entropy, nats a letter",
    "CPU s",
]


def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """``[rows, longest]``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])


def encoded(tokenizer: Tokenizer, chosen: Sequence[str]) -> dict[str, Tensor]:
    """What transformers' model takes: shortened words, their mask, and the words as labels."""
    ids = padded(tokenizer.encode_batch([shortened(word) for word in chosen]), -1)
    labels = padded(tokenizer.encode_batch(list(chosen)), -100)
    return {"input_ids": ids.clamp_min(0), "attention_mask": (ids >= 0).long(), "labels": labels}


def transformers_model(path: Path) -> Any:
    """The checkpoint at ``path``, as transformers opens it."""
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(path)


def train(path: Path, learned: Sequence[str], steps: int, target: Path) -> None:
    """Write the model at ``path``, trained on ``learned`` words, to ``target``, and what that cost beside
    it.
    """
    began = time.process_time()
    model, tokenizer, draw = transformers_model(path).train(), Tokenizer.open(path), random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss = model(**encoded(tokenizer, draw.sample(list(learned), BATCH))).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{target.name}: step {step} of {steps}, loss {float(loss.detach()):.3f}", flush=True)
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    for file in path.glob("tokenizer*"):
        shutil.copyfile(file, part / file.name)
    write_json(target.with_suffix(".cost.json"), {"cpu_seconds": time.process_time() - began})
    part.rename(target)


@torch.no_grad()
def answers(path: Path, tested: Sequence[str]) -> tuple[list[str], float]:
    """What the model at ``path`` writes greedily for shortened words, and minus the mean log-probability of
    a letter of the words.
    """
    model, tokenizer = load_model(path), Tokenizer.open(path)
    written, lost, counted = [], 0.0, 0
    for start in range(0, len(tested), 100):
        batch = encoded(tokenizer, tested[start : start + 100])
        letters = int((batch["labels"] >= 0).sum())
        lost, counted = lost + float(model(**batch).loss) * letters, counted + letters
        sources = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ids = model.generate(**sources, max_new_tokens=ANSWER, do_sample=False)  # type: ignore[operator]
        written += [tokenizer.decode([token for token in row if token > 1]) for row in ids.tolist()]
    return written, lost / counted


def make(chain: Chain, layers: int) -> None:
    """Every model that is not there yet."""
    work, learned = chain.work, words("calibration")
    teacher = work / "teacher"
    if not teacher.exists():
        shutil.rmtree(work / "random", ignore_errors=True)
        save_small_t5(work / "random", Shape(layers=layers))
        train(work / "random", learned, STEPS, teacher)
    few = random.Random(1).sample(learned, SAMPLES)
    rows = [json.dumps({"text": shortened(word)}) for word in few]
    (work / "sources.jsonl").write_text("\n".join(dict.fromkeys(rows)), encoding="utf-8")
    (work / "distilled.yaml").write_text(
        yaml.safe_dump({"name": "sequence", "embedding": None, "passes": [LEARN]}), encoding="utf-8"
    )
    texts = len(set(rows))
    if not (work / "distilled").exists():
        options = f"--calibration {work}/sources.jsonl --samples {texts} --length {LENGTH} -q"
        seconds, _ = chain.call(
            f"compress {teacher} -r {work}/distilled.yaml {options} -o {work}/distilled", threads=1
        )
        write_json(work / "distilled.cost.json", {"cpu_seconds": seconds})
    if not (work / "cut").exists():
        cut = shallow_source(WeightSource.open(teacher), (KEPT, KEPT), work / "shallow")
        cut.reader.path.rename(work / "cut")
        write_json(work / "cut.cost.json", {"cpu_seconds": 0.0})
    if not (work / "pairs").exists():
        train(work / "cut", few, texts * EPOCHS * 7 // 8 // BATCH, work / "pairs")


def measured(work: Path, name: str, tested: Sequence[str]) -> dict[str, Any]:
    """What the model ``name`` writes, and its cross-entropy, kept in its file."""
    file = work / f"{name}.json"
    if not file.exists():
        written, loss = answers(work / name, tested)
        write_json(file, {"written": written, "cross_entropy": loss})
    found: dict[str, Any] = read_json(file)
    return found


def share(pairs: Sequence[tuple[object, object]]) -> str:
    """How many pairs are equal."""
    return f"{sum(one == other for one, other in pairs) / len(pairs):.1%}"


def table_rows(work: Path, tested: Sequence[str]) -> list[list[str]]:
    """A row for each model."""
    rows = []
    taught = measured(work, "teacher", tested)["written"]
    for name, label in LABELS.items():
        found, source = measured(work, name, tested), WeightSource.open(work / name)
        written = found["written"]
        stored = sum(map(source.reader.nbytes, source.reader.shapes))
        rows.append(
            [
                label,
                " + ".join(map(str, source.anatomy.layers())),
                f"{stored / 4e6:.2f} M",
                f"{stored / 1e6:.1f}",
                share(list(zip(written, tested, strict=True))),
                "–" if name == "teacher" else share(list(zip(written, taught, strict=True))),
                f"{found['cross_entropy']:.3f}",
                f"{read_json(work / f'{name}.cost.json')['cpu_seconds']:.0f}",
            ]
        )
    return rows


def main() -> None:
    """The command line of this check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    chain = Chain("sequence", given.work, None, quick=False)
    make(chain, Shape().layers)
    seen = set(words("calibration"))
    unseen = [word for word in words("held-out") if word not in seen]
    tested = random.Random(2).sample(unseen, TESTED)
    learned = read_json(chain.work / "distilled" / "edgepress.json")["steps"][0]["details"]["held_out"]
    notes = [
        f"Task: words of package text by what is left of them without vowels, letter by letter; {TESTED} "
        "words of held-out articles that are in none of the others, answers written greedily.",
        f"Teacher: {STEPS} steps of {BATCH} pairs out of {len(seen):,}. Students: {SAMPLES:,} of these "
        f"words, {EPOCHS} times; `distill` sees the shortened words alone, and holds an eighth of them out.",
        "distill, cross-entropy of the teacher's answers held out, nats a letter by steps: "
        + ", ".join(f"{step} → {loss:.3f}" for step, loss in learned)
        + ".",
        "CPU s: one thread; of the loop here, or of `edgepress compress` with the teacher's answers.",
    ]
    title = "A small T5 with half of its layers, taught by what it writes"
    rows = table_rows(chain.work, tested)
    write_table(given.results / "sequence.md", title, COMMAND, HEADER, rows, notes)


if __name__ == "__main__":
    main()
