"""From text to tensors: windows of tokens, and ``TokenBatch``, rows of tokens under a mask.

Documents are separated by a blank line before they are tokenised, which every tokenizer has seen in training,
and windows are cut from the stream without overlap or padding, for calibration and for perplexity alike. A
model whose tokenizer begins each text with a BOS token (Gemma, Llama) gets it in front of every window,
within its length; SmolLM2 has none.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.text.tokenizer import Tokenizer

Ids = NDArray[np.int64]

SEPARATOR = "\n\n"
_CHUNK = 1 << 20


def starts_with_bos(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer puts its BOS token in front of a text."""
    bare, full = tokenizer.encode("a", special=False), tokenizer.encode("a", special=True)
    return tokenizer.bos_id is not None and full[:1] == [tokenizer.bos_id] and full != bare


def token_stream(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    separator: str = SEPARATOR,
    limit: int | None = None,
    chunk: int = _CHUNK,
) -> Ids:
    """Ids ``[tokens]`` of all texts, without tokens that the tokenizer adds; at most ``limit`` of them.

    Text is given to the tokenizer in chunks of about ``chunk`` characters, and no more of it than ``limit``
    needs.
    """
    parts: list[Ids] = []
    count = 0
    for text in _chunks(texts, separator, chunk if limit is None else min(chunk, 8 * limit)):
        parts.append(np.asarray(tokenizer.encode(text, special=False), dtype=np.int64))
        count += len(parts[-1])
        if limit is not None and count >= limit:
            break
    return np.concatenate(parts)[:limit] if parts else np.empty(0, np.int64)


def _chunks(texts: Sequence[str], separator: str, size: int) -> Iterator[str]:
    pending, length = "", 0
    held: list[str] = []
    for text in texts:
        held.append(text)
        length += len(text)
        if length >= size:
            yield pending + separator.join(held)
            # A separator opens the next chunk, so that it is tokenised with what follows it.
            pending, length, held = separator, 0, []
    if held:
        yield pending + separator.join(held)


def windows(stream: Ids, length: int, *, bos: int | None = None) -> Ids:
    """``[count, length]``: consecutive windows of the stream, each with ``bos`` in front when it is given."""
    taken = length if bos is None else length - 1
    count = len(stream) // taken
    cut = stream[: count * taken].reshape(count, taken)
    if bos is None:
        return cut
    return np.concatenate([np.full((count, 1), bos, dtype=np.int64), cut], axis=1)


class Row(NamedTuple):
    """Token ids, a label's place, and the ids of what an encoder–decoder is to write of them."""

    ids: Ids
    label: int | None = None
    answer: Ids | None = None


@dataclass(frozen=True)
class TokenBatch:
    """``input_ids`` and ``attention_mask``, both ``[batch, length]`` int64; the mask is 1 on real tokens. Of
    images ``input_ids`` are pixels ``[batch, 3, height, width]`` float32, of sounds spectra ``[batch, bins,
    frames]``, and all tokens are real.

    ``labels [batch]`` int64 are places among a classifier's, −1 for rows that have none; None without any.
    ``answers`` are what the decoder of an encoder–decoder writes, a row a row; None where it writes
    ``input_ids`` again.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None = None
    answers: TokenBatch | None = None

    def written(self) -> TokenBatch:
        """What a decoder writes of it."""
        return self.answers or self

    def part(self, rows: slice) -> TokenBatch:
        """Some of its ``rows``, as they are."""
        labels = None if self.labels is None else self.labels[rows]
        answers = None if self.answers is None else self.answers.part(rows)
        return TokenBatch(self.input_ids[rows], self.attention_mask[rows], labels, answers)


def model_inputs(input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor | None]:
    """The keyword arguments by which transformers' models take the two; a mask of ones alone may be None."""
    if input_ids.is_floating_point():
        return {"pixel_values" if input_ids.ndim == 4 else "input_features": input_ids}
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def batched(rows: Sequence[Row], batch_size: int, pad: int) -> Iterator[TokenBatch]:
    """Batches of at most ``batch_size`` rows, each as long as its longest, filled up with ``pad``."""
    labelled = any(row.label is not None for row in rows)
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        labels = torch.tensor([-1 if row.label is None else row.label for row in group]) if labelled else None
        answers = [row.answer for row in group if row.answer is not None]
        written = TokenBatch(*_padded(answers, pad)) if answers else None
        yield TokenBatch(*_padded([row.ids for row in group], pad), labels, written)


def padded_row(row: Row, length: int, pad: int) -> Row:
    """``row`` with ``pad`` behind it, as tokens that are read."""
    ids = np.full(length, pad, np.int64)
    ids[: len(row.ids)] = row.ids
    return row._replace(ids=ids)


def _padded(rows: Sequence[Ids], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and mask ``[rows, longest]``."""
    ids = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.from_numpy(row)
        mask[index, : len(row)] = 1
    return ids, mask


def rows_of(batch: TokenBatch) -> Iterator[Row]:
    """The rows that :func:`batched` was given, of text."""
    labels = itertools.repeat(-1) if batch.labels is None else batch.labels.tolist()
    answers = itertools.repeat(None) if batch.answers is None else (row.ids for row in rows_of(batch.answers))
    for row, kept, label, answer in zip(batch.input_ids, batch.attention_mask, labels, answers, strict=False):
        yield Row(row[kept != 0].numpy(), None if label < 0 else label, answer)


def hash_of(batches: tuple[TokenBatch, ...]) -> str:
    """SHA-256 over the ids, masks and labels of ``batches``, and their answers."""
    digest = hashlib.sha256()
    for batch in (part for one in batches for part in (one, one.answers) if part is not None):
        digest.update(repr(tuple(batch.input_ids.shape)).encode())
        kind = "<f4" if batch.input_ids.is_floating_point() else "<i8"
        digest.update(batch.input_ids.numpy().astype(kind).tobytes())
        digest.update(batch.attention_mask.numpy().astype("<i8").tobytes())
        if batch.labels is not None:
            digest.update(batch.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()
