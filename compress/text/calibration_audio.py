"""Calibration with sounds: so many of a folder's, drawn by seed, each with what is said in it, which the
decoder writes. The words to ``NAME.wav`` are in ``NAME.txt``; where they begin with tokens of their own, as
in ``<|de|><|transcribe|><|notimestamps|> Guten Tag``, these stand in front and not those of the settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import CalibrationError
from ...files.storage import read_text
from ...runtime.audio.wav_file import filled, read_sound, sound_files
from ...runtime.bundle.preprocessing import Sound
from ...runtime.text.tokenizer import Tokenizer
from .calibration import Calibration
from .drawn_files import draw_files, require_sizes
from .log_mel import LogMel
from .probe_text import TEXTS, TOKENS, refuse_probe
from .spectra import spectra
from .token_batch import Ids, Row, TokenBatch, batched

_PROBE_SEED = 20_252
_OWN_TOKENS = "<|"


@dataclass(frozen=True)
class Words:
    """How what was said becomes tokens: ``prompt`` in front, ``end`` behind, at most ``longest`` in all, each
    below ``vocabulary``.
    """

    tokenizer: Tokenizer
    prompt: Sequence[int]
    end: int | None
    longest: int
    vocabulary: int

    def ids(self, text: str) -> Ids:
        """What a decoder writes of it, behind its start."""
        said = spoken(text)
        front = [] if said.startswith(_OWN_TOKENS) else list(self.prompt)
        ids = front + self.tokenizer.encode(said, special=False)
        ids += [] if self.end is None else [self.end]
        return np.asarray(ids[: self.longest], np.int64)


def spoken(text: str) -> str:
    """What a decoder writes of ``text``: words begin with a space, tokens of their own in front do not."""
    said = text.strip()
    return said if said.startswith(_OWN_TOKENS) else f" {said}"


def calibration_of_sounds(
    source: str, how: LogMel, words: Words, *, tokens: int, samples: int, seed: int = 0, batch_size: int
) -> Calibration:
    """Read ``samples`` of the sounds in the directory ``source``, of which each becomes so many
    ``tokens``.
    """
    require_sizes(samples, batch_size)
    drawn = draw_files(sound_files(Path(source)), "sounds", source, samples=samples, seed=seed)
    texts = [said_in(file) for file in drawn.chosen]
    refuse_probe(texts, source)
    answers = [words.ids(text) for text in texts]
    _require_known(answers, drawn.chosen, words)
    batches = (
        _batch([read_sound(file, _sound(how)) for file in drawn.chosen[part]], answers[part], how, tokens)
        for part in (slice(start, start + batch_size) for start in range(0, samples, batch_size))
    )
    truncated = sum(len(ids) == words.longest for ids in answers)
    return drawn.calibration(batches, tokens=tokens, truncated=truncated)


def _sound(how: LogMel) -> Sound:
    return Sound(rate=how.rate, samples=how.samples)


def said_in(file: Path) -> str:
    """What is said in ``file``, as the text beside it has it."""
    words = file.with_suffix(".txt")
    try:
        text = read_text(words)
    except FileNotFoundError:
        raise CalibrationError(
            f"what is said in {file} is not known: there is no {words.name} beside it",
            why="the decoder is given what it is to write",
            fix="write it down there, or let the model: edgepress export MODEL -o BUNDLE, then "
            f"edgepress generate BUNDLE --audio {file.name}",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read {words}", why=str(error)) from None
    if not text.strip():
        raise CalibrationError(f"{words} is empty", fix="write down what is said, or leave the sound out")
    return text


def _require_known(answers: Sequence[Ids], files: Sequence[Path], words: Words) -> None:
    for ids, file in zip(answers, files, strict=True):
        if int(ids.max()) >= words.vocabulary:
            raise CalibrationError(
                f"what is said in {file} gives token id {int(ids.max())}, but the model has embeddings for "
                f"{words.vocabulary} tokens",
                why="the tokenizer does not belong to this model",
                fix="put the model's own tokenizer.json beside its weights",
            )


def _batch(
    sounds: Sequence[NDArray[np.float32]], answers: Sequence[Ids], how: LogMel, tokens: int
) -> TokenBatch:
    """``sounds`` and what is written of each."""
    read = spectra(filled(sounds, _sound(how)), how)
    (written,) = batched([Row(ids) for ids in answers], len(answers), pad=0)
    return TokenBatch(read, torch.ones(len(read), tokens, dtype=torch.int64), None, written)


def probe_sounds(how: LogMel, words: Words, tokens: int) -> list[TokenBatch]:
    """Sounds that steps are measured on, which nobody calibrates with, and the texts of
    :mod:`.probe_text`, one of each a batch.
    """
    short = Words(words.tokenizer, words.prompt, None, min(TOKENS, words.longest), words.vocabulary)
    answers = [short.ids(text) for text in TEXTS]
    return [
        _batch([sound], [ids], how, tokens)
        for sound, ids in zip(made_sounds(how, len(answers)), answers, strict=True)
    ]


def made_sounds(how: LogMel, count: int, seed: int = _PROBE_SEED) -> list[NDArray[np.float32]]:
    """Somewhat like speech: voices of gliding pitch with pauses, over noise; each of another length."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        length = how.samples * (number + 2) // (count + 2)
        time = np.arange(length) / how.rate
        pitch = generator.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * generator.uniform(0.2, 1) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / how.rate
        voice = sum(np.sin(k * phase + generator.uniform(0, 6)) / k for k in range(1, 24))
        syllables = np.clip(np.sin(2 * np.pi * generator.uniform(1, 4) * time) + 0.3, 0, 1)
        sound = 0.15 * voice * syllables + generator.normal(0, 0.01, length)
        found.append(np.clip(sound, -1, 1).astype(np.float32))
    return found
