"""Whom each compression harms: slices of checkpoints of one model, measured side by side.

    python -m edgepress.benchmarks.lab.programs.slice_table WORK ORIGINAL NAME… [--every N] [--slices NAMES]

``WORK/NAME`` are the checkpoints. What the original says is computed once for all of them and kept in
``WORK/logits``, in float16 below its largest logit, which moves KL by about 1e-6. A line each goes to
``WORK/NAME.slices.json``; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....compress.text.corpus import read_corpus
from ...quality.accuracy import score_windows
from ...quality.held_out_text import measured_windows
from ...quality.subgroups.kept_rows import KeptRows
from ...quality.subgroups.measure_slices import ALL, Given, measure_slices
from ...quality.token_damage import TokenDamage
from ...records.subjects import OpenModel, open_subject

WINDOWS, LENGTH = 8, 256


class KeptLogits:
    """A decoder whose logits are computed once for each text, and read from ``directory`` after that."""

    def __init__(self, model: OpenModel, directory: Path) -> None:
        self._model, self._directory = model, directory
        directory.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def logits(self, input_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """As of :class:`~edgepress.benchmarks.records.subjects.OpenModel`."""
        digest = hashlib.sha256(f"{input_ids.shape}".encode() + input_ids.tobytes()).hexdigest()
        file = self._directory / f"{digest}.npy"
        if not file.is_file():
            logits = self._model.logits(input_ids)
            rounded = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float16)
            part = file.with_suffix(".part")
            with part.open("wb") as stream:
                np.save(stream, rounded)
            part.rename(file)
        kept: NDArray[np.float32] = np.load(file).astype(np.float32)
        return kept


def measure(
    checkpoint: Path, original: Any, names: Sequence[str], every: int, seed: int = 0
) -> dict[str, Any]:
    """The report of the slices ``names`` of ``checkpoint``, its KL on held-out Wikipedia, and what it
    cost."""
    start, subject = time.process_time(), open_subject(checkpoint, threads=1)
    damage: list[TokenDamage] = []
    if subject.kind == "decoder":
        texts = read_corpus("wikipedia", split="held-out").texts()
        ids = measured_windows(original.tokenizer, texts, count=WINDOWS, length=LENGTH, placement="spread")
        score_windows(subject, original, ids, damage=damage)
    kept = KeptRows(checkpoint.with_suffix(".jsonl"), f"{subject.describe().manifest_sha256} {every}")
    report = measure_slices(subject, original, names, Given(damage, (), seed, every), kept)
    every_kl = np.concatenate([one.kl for one in damage]) if damage else np.zeros(1)
    flips = np.concatenate([one.flips for one in damage]) if damage else np.zeros(1)
    return {
        "name": checkpoint.name,
        "scheme": subject.describe().scheme,
        "kl": float(every_kl.mean()),
        "flips": float(flips.mean()),
        "cpu_seconds": time.process_time() - start,
        **report,
    }


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("original")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--every", type=int, default=1, help="of what groups share, one in so many")
    parser.add_argument("--slices", default=ALL, help="names with commas")
    given = parser.parse_args()
    original: Any = open_subject(given.original, threads=1)
    if original.kind == "decoder":
        original = KeptLogits(original, given.work / "logits")
    for name in given.names:
        line = given.work / f"{name}.slices.json"
        if not line.is_file():
            line.write_text(
                json.dumps(measure(given.work / name, original, given.slices.split(","), given.every)),
                encoding="utf-8",
            )


if __name__ == "__main__":
    main()
