"""``Calibration``: the token batches that every pass sees, with source, seed, counts and a hash over the ids.

A decoder gets windows of exactly ``length`` tokens, drawn without replacement from the whole text and never
padded: every token counts. An encoder gets paragraphs, as it does in use, truncated to ``length`` and padded
under a mask; a classifier whole documents where the text has labels. An encoder–decoder gets source
texts as an encoder does. Where the rows of the text have a ``target``, or are ``input`` and ``output``, that
is what its decoder is given, behind the token that answers begin with, of whole documents; else what the
encoder reads is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from ...errors import CalibrationError, InputError, UnknownName
from ...files.limits import require_seed
from ...runtime.text.tokenizer import Tokenizer
from .calibration_rows import Chat, Drawing, Kind, drawn_rows
from .corpus import LICENSES, read_corpus, text_sha256
from .probe_text import refuse_probe
from .protected_text import ProtectedGroup, ProtectedText, protected_groups
from .token_batch import Row, TokenBatch, batched, hash_of, rows_of

CHATS = ("auto", "always", "never")
DEFAULT_SAMPLES = 64
DEFAULT_LENGTH = 512
DEFAULT_BATCH_SIZE = 8


@dataclass(frozen=True)
class Calibration:
    """What a model is calibrated with.

    Attributes:
        batches: of at most ``batch_size`` rows; decoder batches are unpadded. Those of the protected groups
        come
            last, a row each or more.
        samples, length: rows in all batches, and tokens a row (at most, for an encoder).
        effective_tokens: tokens that are not padding.
        documents, duplicates: distinct documents read, and repetitions that were left out.
        truncated: encoder texts that were longer than ``length``.
        chat: whether conversations were rendered with the model's chat template.
        sha256: over the ids, masks and labels of all batches.
        text_sha256: over the text that was read, before any of it was chosen.
        license: of the text, where it is a known one.
        protected: groups whose text is read beside it.
    """

    batches: tuple[TokenBatch, ...]
    source: str
    seed: int
    samples: int
    length: int
    effective_tokens: int
    documents: int
    duplicates: int
    truncated: int
    chat: bool
    sha256: str
    text_sha256: str = ""
    license: dict[str, str] | None = None
    protected: tuple[ProtectedGroup, ...] = ()

    @property
    def written_tokens(self) -> int:
        """How many tokens a decoder writes of it: those of the answers, or all places that are read."""
        answers = [batch.answers.attention_mask for batch in self.batches if batch.answers is not None]
        return sum(int(mask.sum()) for mask in answers) if answers else self.samples * self.length

    @property
    def tokens_of_a_sample(self) -> float:
        """In the mean: an encoder's samples are paragraphs, most of them shorter than ``length``."""
        return self.effective_tokens / self.samples

    def describe(self) -> dict[str, Any]:
        """Everything but the batches, ready for a manifest; of the protected groups the tokens."""
        found = {name: value for name, value in vars(self).items() if name not in ("batches", "protected")}
        tokens = {group.name: group.tokens for group in self.protected}
        return found | ({"protected": tokens} if tokens else {})

    def own(self) -> Calibration:
        """Without the protected groups."""
        count = sum(len(group.batches) for group in self.protected)
        return replace(self, batches=self.batches[: len(self.batches) - count], protected=())

    def only(self, group: ProtectedGroup) -> Calibration:
        """Of a protected group alone."""
        rows = sum(len(batch.input_ids) for batch in group.batches)
        return replace(self, batches=group.batches, samples=rows, protected=())

    def spread(self, samples: int | None) -> Calibration:
        """So many of its own rows, evenly spread, and all of protected groups; itself where it has no more,
        or ``samples`` is None."""
        if samples is None or samples >= self.samples:
            return self
        return self._only_rows(self._places(samples))

    def parted(self, samples: int) -> tuple[Calibration, Calibration]:
        """So many of its own rows, evenly spread, at most half of them; and the others, which are at least
        one where it has two.
        """
        taken = self._places(max(1, min(samples, self.samples // 2)))
        return self._only_rows(taken), self._only_rows(sorted({*range(self.samples)} - {*taken}))

    def _places(self, samples: int) -> list[int]:
        return [index * self.samples // samples for index in range(samples)]

    def _only_rows(self, places: Sequence[int]) -> Calibration:
        """The rows of its own at these ``places``, and all of protected groups."""
        if self.batches[0].input_ids.is_floating_point():
            return self._only_floats(places)
        samples = len(places)
        rows = [row for batch in self.own().batches for row in rows_of(batch)]
        rows = [rows[place] for place in places]
        batches = tuple(batched(rows, len(self.batches[0].input_ids), pad=0))
        batches += tuple(batch for group in self.protected for batch in group.batches)
        tokens = sum(len(row.ids) for row in rows)
        return replace(
            self, batches=batches, samples=samples, effective_tokens=tokens, sha256=hash_of(batches)
        )

    def _only_floats(self, places: Sequence[int]) -> Calibration:
        """:meth:`_only_rows` of images, and of sounds with what is said in them."""
        size, samples = len(self.batches[0].input_ids), len(places)
        chosen = torch.cat([batch.input_ids for batch in self.batches])[list(places)]
        said = [row for batch in self.batches if batch.answers for row in rows_of(batch.answers)]
        written = [*batched([said[place] for place in places], size, pad=0)] if said else []
        batches = tuple(
            TokenBatch(part, torch.ones(len(part), self.length, dtype=torch.int64), None, answers)
            for part, answers in zip_longest(torch.split(chosen, size), written)
        )
        tokens = samples * self.length
        return replace(
            self, batches=batches, samples=samples, effective_tokens=tokens, sha256=hash_of(batches)
        )


def calibration_from(
    source: str,
    tokenizer: Tokenizer,
    *,
    kind: Kind,
    samples: int = DEFAULT_SAMPLES,
    length: int = DEFAULT_LENGTH,
    seed: int = 0,
    field: str = "text",
    batch_size: int = DEFAULT_BATCH_SIZE,
    chat: Chat = "auto",
    vocab_size: int | None = None,
    labels: Sequence[str] = (),
    protect: Sequence[ProtectedText] = (),
    filled: int | None = None,
) -> Calibration:
    """Read ``source`` (a file, a directory or a demo corpus) and cut it into batches.

    Args:
        samples: number of sequences.
        length: tokens per sequence.
        seed: decides which windows or paragraphs are taken; the same seed gives the same bytes.
        field: key of the text in ``.jsonl`` rows.
        chat: ``auto`` renders rows with ``messages`` through the chat template and leaves text as it is,
            ``always`` renders text too, as a user's turn, ``never`` uses the bare content. Decoders only.
        vocab_size: rows of the model's embedding; the tokenizer's own size when None.
        labels: a classifier's, by which those of ``.jsonl`` rows are known.
        protect: text of groups that is read beside it.
        filled: tokens that each text of an encoder is filled up to with padding, which the model reads.
    """
    _require_sensible(kind, samples, length, batch_size, chat)
    corpus = read_corpus(source, field=field, paired=kind == "encoder_decoder")
    refuse_probe(corpus.texts(), source)
    how = Drawing(samples, length, np.random.default_rng(require_seed(seed)))
    drawn = drawn_rows(kind, corpus, tokenizer, how, chat=chat, labels=labels, filled=filled)
    rows = drawn.rows
    _require_known_ids(rows, tokenizer.vocab_size if vocab_size is None else vocab_size, source)
    tokens = sum(len(row.ids) for row in rows)
    protected = protected_groups(protect, tokenizer, decodes=kind == "decoder", tokens=tokens, length=length)
    batches = tuple(batched(rows, batch_size, tokenizer.pad_id or 0))
    batches += tuple(batch for group in protected for batch in group.batches)
    return Calibration(
        batches=batches,
        source=source,
        seed=seed,
        samples=len(rows),
        length=length,
        effective_tokens=tokens,
        documents=len(corpus.distinct()),
        duplicates=corpus.duplicates,
        truncated=drawn.truncated,
        chat=drawn.rendered,
        sha256=hash_of(batches),
        text_sha256=text_sha256(source),
        license=LICENSES.get(source),
        protected=protected,
    )


def _require_sensible(kind: Kind, samples: int, length: int, batch_size: int, chat: str) -> None:
    if min(samples, length - 1, batch_size) < 1:
        raise InputError(
            f"calibration needs samples and batch size ≥ 1 and length ≥ 2, not {samples}, {length}"
        )
    if chat not in CHATS:
        raise UnknownName("chat mode", chat, CHATS)
    if chat == "always" and kind != "decoder":
        raise InputError("only a decoder has a chat template", fix="leave --chat out")


def _require_known_ids(rows: list[Row], vocab_size: int, source: str) -> None:
    largest = max(int(ids.max()) for row in rows for ids in (row.ids, row.answer) if ids is not None)
    if largest >= vocab_size:
        raise CalibrationError(
            f"{source} gives token id {largest}, but the model has embeddings for {vocab_size} tokens",
            why="the tokenizer does not belong to this model",
            fix="put the model's own tokenizer.json beside its weights",
        )
