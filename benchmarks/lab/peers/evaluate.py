"""The evaluation of a quantizer's result, the same for all: KL, top-1 agreement and perplexity on each text.

    python -m edgepress.benchmarks.lab.peers.evaluate CHECKPOINT ORIGINAL LOGITS --windows 8 [--text FILE…]

The original's logits are computed once and kept in the directory LOGITS: 0.8 GB a text for 8 windows of
SmolLM2. Windows and metrics are those of ``edgepress validate``. One JSON document on stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....compress.text.corpus import texts_from
from ....runtime.text.tokenizer import Tokenizer
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...records.subjects import TokenModel, open_subject

LENGTH = 512
HELD_OUT = "wikipedia"

Ids = NDArray[np.int64]


@dataclass
class RecordedLogits:
    """The original as its logits ``[windows, length, vocab]``, mapped from a file."""

    tokenizer: Tokenizer
    ids: Ids
    rows: NDArray[np.float32]

    def logits(self, input_ids: Ids) -> NDArray[np.float32]:
        """Logits ``[1, length, vocab]`` of one of the recorded windows."""
        (where,) = np.flatnonzero((self.ids == input_ids).all(axis=1))
        return self.rows[where : where + 1]


def recorded(original: str, tokenizer: Tokenizer, ids: Ids, folder: Path, threads: int) -> RecordedLogits:
    """The original's logits over ``ids [windows, length]``, from ``folder`` or put there."""
    path = folder / f"{hashlib.sha256(ids.astype('<i8').tobytes()).hexdigest()[:16]}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        model, part = open_subject(original, threads=threads), path.with_suffix(".part")
        rows = None
        for index, window in enumerate(ids):
            logits = model.logits(window[None])
            if rows is None:
                shape = (len(ids), *logits.shape[1:])
                rows = np.lib.format.open_memmap(part, "w+", np.float32, shape)
            rows[index] = logits[0]
        del rows, model
        part.rename(path)
    return RecordedLogits(tokenizer, ids, np.load(path, mmap_mode="r"))


def evaluate(subject: TokenModel, original: RecordedLogits) -> dict[str, float]:
    """Metrics of ``subject`` by name, and the original's perplexity."""
    scores = score_windows(subject, original, original.ids)
    found = {name: one.metric.value(one.subject) for name, one in scores.items()}
    perplexity = scores["perplexity"]
    return found | {"original_perplexity": perplexity.metric.value(perplexity.original)}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("original", help="a directory or a demo name")
    parser.add_argument("logits", type=Path)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    subject = open_subject(arguments.checkpoint, threads=arguments.threads)
    found = {}
    for text in (None, *arguments.text):
        texts = texts_from(str(text or HELD_OUT), split="held-out")
        ids = measured_windows(
            subject.tokenizer, texts, count=arguments.windows, length=LENGTH, placement="spread"
        )
        original = recorded(arguments.original, subject.tokenizer, ids, arguments.logits, arguments.threads)
        found[text.name if text else HELD_OUT] = evaluate(subject, original)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
