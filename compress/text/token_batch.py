"""``TokenBatch``: rows of tokens as one tensor under a mask; made of rows of any length, and taken apart."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .token_windows import Ids

Row = tuple[Ids, int | None]  # token ids, and a label's place


@dataclass(frozen=True)
class TokenBatch:
    """``input_ids`` and ``attention_mask``, both ``[batch, length]`` int64; the mask is 1 on real tokens.

    ``labels [batch]`` int64 are places among a classifier's, −1 for rows that have none; None without any.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None = None


def batched(rows: Sequence[Row], batch_size: int, pad: int) -> Iterator[TokenBatch]:
    """Batches of at most ``batch_size`` rows, each as long as its longest, filled up with ``pad``."""
    labelled = any(label is not None for _, label in rows)
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        ids = torch.full((len(group), max(len(row) for row, _ in group)), pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, (row, _) in enumerate(group):
            ids[index, : len(row)] = torch.from_numpy(row)
            mask[index, : len(row)] = 1
        labels = torch.tensor([-1 if label is None else label for _, label in group]) if labelled else None
        yield TokenBatch(ids, mask, labels)


def rows_of(batch: TokenBatch) -> Iterator[Row]:
    """The rows that :func:`batched` was given."""
    labels = itertools.repeat(-1) if batch.labels is None else batch.labels.tolist()
    for row, kept, label in zip(batch.input_ids, batch.attention_mask, labels, strict=False):
        yield row[kept != 0].numpy(), None if label < 0 else label


def hash_of(batches: tuple[TokenBatch, ...]) -> str:
    """SHA-256 over the ids, masks and labels of ``batches``."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(repr(tuple(batch.input_ids.shape)).encode())
        digest.update(batch.input_ids.numpy().astype("<i8").tobytes())
        digest.update(batch.attention_mask.numpy().astype("<i8").tobytes())
        if batch.labels is not None:
            digest.update(batch.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
