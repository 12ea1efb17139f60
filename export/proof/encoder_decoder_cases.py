"""What a proof gives the two graphs of an encoder–decoder, and torch: texts or sounds of unequal length, and
tokens that are written of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...runtime.bundle.graph_sections import EncoderDecoderSection
from ...runtime.engine.encoder_decoder import EncoderDecoder
from ..job import ExportJob
from .proof_text import Ids, padded, token_rows, token_sentences
from .sounds import sounds_of

# Texts that are read, tokens that are written of each, and how many of them come out of the cache.
_SHAPES = (((1,), 1, 0), ((7, 3, 7), 5, 2), ((33, 16, 9), 20, 19))
_TEXTS, _SOUNDS, _WRITTEN = 8, 4, 32
LONGEST = 48  # tokens of a sentence that is read
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What an encoder is given in torch, texts or ``sounds [batch, samples]``, and what is written of it,
    ``[batch, written]``, of which the first ``depth`` tokens come from the cache.
    """

    given: dict[str, Any]
    written: Ids
    depth: int = 0
    sounds: Floats | None = None

    def ours(self, driver: EncoderDecoder) -> Floats:
        """The graphs' logits ``[batch, written, vocab]``."""
        if self.sounds is None:
            driver.read(self.given["input_ids"], self.given["attention_mask"])
        else:
            driver.hear(self.sounds)
        cuts = (self.written[:, : self.depth], self.written[:, self.depth :])
        return np.concatenate([driver.write(cut) for cut in cuts if cut.shape[1]], axis=1)

    @torch.no_grad()
    def theirs(self, model: nn.Module) -> Floats:
        """Torch's."""
        given = {**self.given, "decoder_input_ids": self.written}
        found = model(**{name: torch.from_numpy(value) for name, value in given.items()}, use_cache=False)
        return np.asarray(found.logits.float().numpy(), np.float32)


def short_cases(job: ExportJob, section: EncoderDecoderSection) -> list[Case]:
    """Texts or sounds of unequal length, with caches of every depth."""
    longest = min(max(length for read, *_ in _SHAPES for length in read), section.max_length)
    ids = token_rows(job.path, job.text, 6, max(longest, _WRITTEN), section.vocab_size)
    found = []
    for read, written, depth in _SHAPES:
        tokens = np.ascontiguousarray(ids[3 : 3 + len(read), : min(written, section.context_length)])
        if section.sound is not None:
            found.append(sound_case(job, tokens, depth))
        else:
            texts = padded([ids[row, : min(length, longest)] for row, length in enumerate(read)], 0)
            found.append(Case(texts, tokens, depth))
    return found


def sound_case(job: ExportJob, written: Ids, depth: int = 0) -> Case:
    """Sounds of unequal length, and what is ``written`` of each."""
    sounds, given = sounds_of(job, len(written))
    return Case({"input_features": given}, written, depth, sounds)


def sentences(job: ExportJob, section: EncoderDecoderSection) -> Case:
    """Sentences, or sounds, and prose that is written of them."""
    length = min(_WRITTEN, section.context_length)
    if section.sound is not None:
        return sound_case(job, token_rows(job.path, job.text, _SOUNDS, length, section.vocab_size))
    longest = min(LONGEST, section.max_length)
    rows = token_sentences(job.path, job.text, _TEXTS, longest, section.vocab_size)
    written = token_rows(job.path, job.text, len(rows), length, section.vocab_size)
    return Case(padded(rows, 0), written)
