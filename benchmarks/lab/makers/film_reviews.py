"""MiniLM trained to tell good film reviews from bad, and the reviews: what classifiers are distilled from.

The text ``snippets`` is movieReviewSnippets_GroundTruth.txt: snippets, each rated by twenty people (Hutto,
Gilbert 2014, VADER), in the archive inside the source package of vaderSentiment 3.3.2. A snippet is good if
its mean rating is above zero. ``part: learned`` and ``part: tested`` make the two parts of the text; without
one a classifier is made, a BertForSequenceClassification of the encoder ``model`` that was trained on the
first part with ``seed``.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ....compress.measure.reading import autocast
from ....compress.model.models import resolve
from ....files.storage import write_atomic
from ....runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ..study.schema import Source
    from ..study.sources import Sources

LABELS = ("bad", "good")
RATE, HEAD_RATE = 6e-5, 1e-3
LENGTH = 48  # tokens
PICO: dict[str, Any] = {"steps": 4, "tested": 12}

Reviews = list[tuple[str, int]]


def make(
    target: Path,
    sources: Sources,
    *,
    snippets: str,
    part: str = "",
    model: Source = "minilm",
    seed: int = 0,
    tested: int = 2600,
    steps: int = 250,
) -> None:
    """Write the classifier, or a ``part`` of the reviews: texts, or rows with a label."""
    learned, held_out = split(Path(sources.text(snippets)), tested)
    if part == "learned":
        write_atomic(target, "\n\n".join(text for text, _ in learned).encode())
    elif part == "tested":
        rows = [json.dumps({"text": text, "label": LABELS[label]}) for text, label in held_out]
        target.mkdir()
        write_atomic(target / "tested.jsonl", "\n".join(rows).encode())
    else:
        fine_tune(resolve(sources.model(model)).path, learned, seed, target, steps)


def split(file: Path, tested: int) -> tuple[Reviews, Reviews]:
    """``(to learn from, to test on)``: texts with 1 for good and 0 for bad, split once and for all."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    found = {text.strip(): int(float(rating) > 0) for _, rating, text in rows if float(rating) != 0}
    shuffled = sorted(found.items())
    random.Random(0).shuffle(shuffled)
    return shuffled[tested:], shuffled[:tested]


def fine_tune(path: Path, learned: Reviews, seed: int, target: Path, steps: int, batch: int = 32) -> None:
    """Write the encoder at ``path`` with a head, both trained, to ``target``."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        path, id2label=dict(enumerate(LABELS)), dtype=torch.float32
    ).train()
    tokenizer, draw = Tokenizer.open(path), random.Random(seed)
    encoder = [*model.bert.encoder.parameters(), *model.bert.embeddings.parameters()]
    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    groups = [{"params": encoder, "lr": RATE}, {"params": head, "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [RATE, HEAD_RATE], total_steps=steps)
    for _ in range(steps):
        rows = draw.sample(learned, min(batch, len(learned)))
        ids = tokenizer.encode_batch([text for text, _ in rows], max_length=LENGTH)
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row)) for row in ids], batch_first=True)
        with autocast("auto", torch.device("cpu")):
            logits = model(input_ids=padded, attention_mask=mask.long()).logits
        optimizer.zero_grad()
        wanted = torch.tensor([label for _, label in rows])
        loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.save_pretrained(target)
    # Not what makes a sentence encoder of it.
    for file in (*path.glob("tokenizer*"), *path.glob("vocab.txt"), *path.glob("special_tokens_map.json")):
        shutil.copyfile(file, target / file.name)
