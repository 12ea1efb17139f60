"""What a proof gives the two graphs of an encoder–decoder, and torch: texts or sounds of unequal length, and
tokens that are written of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.text.calibration_audio import made_sounds
from ...compress.text.spectra import spectra
from ...compress.text.token_batch import TokenBatch
from ...runtime.audio.wav_file import filled
from ...runtime.bundle.graph_sections import EncoderDecoderSection
from ...runtime.bundle.preprocessing import Sound
from ...runtime.engine.encoder_decoder import EncoderDecoder
from ..job import ExportJob
from .part_distances import Case as PartCase
from .part_distances import Expected
from .proof_text import Ids, padded, token_rows, token_sentences

_TEXTS, _SOUNDS, _WRITTEN = 8, 4, 32
_LONGEST = 48  # tokens of a sentence that is read
_SEED = 20_253  # of sounds
_WHOLE = 1 << 30  # more than a sound has of anything
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What an encoder is given and what is written of it.

    Attributes:
        given: of texts the tokens ``[rows, tokens]``, padded on the right, of sounds spectra ``[rows, bins,
            frames]`` by transformers' own extractor.
        lengths: the tokens of each text; None for sounds.
        written: ``[rows, tokens]``, behind ``start``.
        sounds: those of the spectra, ``[rows, samples]``.
    """

    given: NDArray[np.int64] | Floats
    lengths: tuple[int, ...] | None
    written: Ids
    start: int
    sounds: Floats | None = None

    @property
    def mask(self) -> Ids:
        """1 for the tokens of texts, ``[rows, tokens]``; ``[rows, 1]`` of ones for sounds."""
        if self.lengths is None:
            return np.ones((len(self.given), 1), np.int64)
        places = np.arange(self.given.shape[1])
        return (places < np.array(self.lengths)[:, None]).astype(np.int64)

    @property
    def decoder_ids(self) -> Ids:
        """What the decoder is given: of the tokens that are written those before each."""
        start = np.full((len(self.written), 1), self.start, np.int64)
        return np.concatenate([start, self.written[:, :-1]], axis=1)

    @property
    def read_cases(self) -> list[PartCase]:
        """For parts of the encoder: all rows, padded, and the first one alone."""
        rows, tokens = len(self.given), self.given.shape[1]
        if self.lengths is None:
            return [(rows, 0, _WHOLE), (1, 0, _WHOLE)]
        return [(rows, 0, tokens), (1, 0, self.lengths[0])]

    @property
    def written_cases(self) -> list[PartCase]:
        """For parts of the decoder: all rows at once, the first token of one, and rows that go on behind a
        cache.
        """
        rows, tokens = self.written.shape
        half = tokens // 2
        behind = [(rows, half, tokens - half), (rows, tokens - 1, 1)]
        return [(rows, 0, tokens), (1, 0, 1), *(behind if tokens > 2 else [])]

    def of_read(self, entered: Tensor, *outputs: Tensor, adds: bool = False) -> Expected:
        """What a part makes of the tokens that are read, of the states ``entered [rows, tokens, hidden]``;
        ``adds`` to them where it is a block.
        """
        made, states = tuple(one.numpy() for one in outputs), entered.numpy()
        added = tuple(one - states for one in made) if adds else made
        # Of a sound's numbers a part reads at most how many there are.
        beside = {} if self.sounds is None else {"audio": self.sounds, "input_features": self.given}
        return Expected(np.zeros(states.shape[:2], np.int64), (states,), made, added, beside, self.lengths)

    def of_written(self, entered: Tensor, output: Tensor, beside: Mapping[str, NDArray[Any]]) -> Expected:
        """What a block makes of the tokens that are written, of the states ``entered``."""
        states, made = entered.numpy(), output.numpy()
        given = {"encoder_attention_mask": self.mask, **beside}
        return Expected(self.decoder_ids, (states,), (made,), (made - states,), given)

    def batch(self) -> TokenBatch:
        """For torch."""
        written = torch.from_numpy(self.written)
        answers = TokenBatch(written, torch.ones_like(written))
        return TokenBatch(torch.from_numpy(self.given), torch.from_numpy(self.mask), None, answers)

    def logits(self, driver: EncoderDecoder, depth: int = 0) -> Floats:
        """The graphs' logits ``[rows, written, vocab]``; the first ``depth`` tokens come from the cache."""
        if self.sounds is None:
            driver.read(self.given.astype(np.int64), self.mask)
        else:
            driver.hear(self.sounds)
        cuts = self.decoder_ids[:, :depth], self.decoder_ids[:, depth:]
        return np.concatenate([driver.write(cut) for cut in cuts if cut.shape[1]], axis=1)


def case_of(job: ExportJob, section: EncoderDecoderSection, rows: list[Ids] | None, written: Ids) -> Case:
    """``written`` of the texts ``rows``; of as many sounds where the model hears."""
    if rows is None:
        sounds, given = _sounds_of(job, len(written))
        return Case(given, None, written, section.start_token_id, sounds)
    return Case(padded(rows, 0)["input_ids"], tuple(map(len, rows)), written, section.start_token_id)


def texts_of(job: ExportJob, section: EncoderDecoderSection, count: int) -> list[Ids] | None:
    """Up to ``count`` sentences; None where the model hears."""
    if section.sound is not None:
        return None
    return token_sentences(job.path, job.text, count, min(_LONGEST, section.max_length), section.vocab_size)


def sentences(job: ExportJob, section: EncoderDecoderSection) -> Case:
    """Sentences and a single token, or sounds, and prose that is written of them."""
    rows = texts_of(job, section, _TEXTS)
    if rows is not None:
        rows = [*rows, rows[0][:1]]
    count, length = _SOUNDS if rows is None else len(rows), min(_WRITTEN, section.context_length)
    return case_of(job, section, rows, token_rows(job.path, job.text, count, length, section.vocab_size))


def _sounds_of(job: ExportJob, count: int) -> tuple[Floats, Floats]:
    """``count`` sounds ``[count, samples]`` of unequal length, silence behind them, and their spectra
    ``[count, bins, frames]``.
    """
    hearing = job.source.anatomy.hearing
    assert hearing is not None
    how = require_log_mel(hearing, job.path)
    sounds = filled(made_sounds(how, count, _SEED), Sound(rate=how.rate, samples=how.samples))
    return sounds, spectra(sounds, how).numpy()
