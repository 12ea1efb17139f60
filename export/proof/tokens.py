"""Token ids for the proof: rows of one length for decoders, sentences for encoders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.text.tokenizer import Tokenizer
from .proof_text import proof_text

Ids = NDArray[np.int64]
_TOKENIZER = "tokenizer.json"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def rows(checkpoint: Path, text: Path | None, count: int, length: int, vocab_size: int) -> Ids:
    """``[count, length]`` consecutive tokens of the text, repeated if it is short; seeded random ids when the
    checkpoint has no ``tokenizer.json``.
    """
    if not (checkpoint / _TOKENIZER).is_file():
        return np.random.default_rng(0).integers(0, vocab_size, (count, length), dtype=np.int64)
    ids = np.array(Tokenizer.open(checkpoint).encode(proof_text(text), special=False), dtype=np.int64)
    return np.resize(ids, (count, length))


def sentences(checkpoint: Path, text: Path | None, count: int, longest: int, vocab_size: int) -> list[Ids]:
    """Ids of up to ``count`` sentences with their special tokens, each of at most ``longest`` tokens."""
    if not (checkpoint / _TOKENIZER).is_file():
        generator = np.random.default_rng(0)
        lengths = generator.integers(min(4, longest), longest + 1, count)
        return [generator.integers(0, vocab_size, int(length), dtype=np.int64) for length in lengths]
    pieces = [piece for piece in _SENTENCE_END.split(proof_text(text)) if piece.strip()][:count]
    encoded = Tokenizer.open(checkpoint).encode_batch(pieces, max_length=longest)
    return [np.array(ids, dtype=np.int64) for ids in encoded if ids]


def padded(batch: list[Ids], pad: int) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask`` of a batch, padded on the right."""
    width = max(map(len, batch))
    ids = np.full((len(batch), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(batch):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
