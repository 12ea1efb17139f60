"""How far a model that hears is from its original: every metric of tokens, on what was said in the same
sounds, whose words both are given one after the other.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...compress.model.generation_tokens import GenerationTokens
from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.model.hearing.speech_prompt import words_of
from ...compress.model.models import resolve
from ...compress.model.weights import WeightSource
from ...compress.text.calibration_audio import said_in
from ...compress.text.drawn_files import distinct_files
from ...errors import InputError
from ...files.storage import sha256_file, sha256_json
from ...runtime.audio.wav_file import Samples, read_sound, sound_files
from ...runtime.bundle.directory import MANIFEST
from ...runtime.bundle.preprocessing import Sound
from ...runtime.session.needs import Needs, available_memory
from ...runtime.text.tokenizer import Tokenizer
from ...terminal.progress import Progress
from ..records.answer_cache import AnswerCache
from ..records.record import Measurement
from ..records.sound_subjects import SoundSubject, open_sound_subject
from ..records.subjects import NamedModel
from .greedy_text import Replying, Written, answer_scores, reply_scores, sample_replies, score_written
from .held_out_text import Placement, chosen
from .known_original import cache_of, known_replies
from .measured_images import FileSample
from .measured_kinds import Measured
from .measured_pairs import NEW_TOKENS
from .needs import validate_needs
from .quality_run import QualityRun

Ids = NDArray[np.int64]


def validate_sounds(
    subject: NamedModel,
    against: NamedModel,
    sample: FileSample,
    run: QualityRun,
    *,
    replies: bool = True,
) -> Measurement:
    """:func:`.validate.validate_bundle` of a model that hears."""
    files = shown_sounds(sample.folder, sample.count, sample.placement)
    progress = run.progress
    if run.device == "cpu":
        run.require(sound_needs(subject, against, files, run.max_memory, progress))
    source = _original(against, progress)
    said = _said(source, files)
    opened, original = run.opened(subject, against, open_sound_subject)
    tokenizer = Tokenizer.open(source.reader.path)
    result, cache = _measured(opened, original, said, tokenizer, progress), cache_of(original)
    if replies:
        names = [file.name for file in files]
        result = _with_replies(result, opened, original, said, names, tokenizer, cache, progress)
    result.workload["sounds_sha256"] = sha256_json(list(map(sha256_file, files)))
    return run.append(run.lines(opened, original, result, cache, sample.name, sample.placement))


def sound_needs(
    subject: NamedModel,
    against: NamedModel,
    files: Sequence[Path],
    max_memory: float | None,
    progress: Progress,
) -> Needs:
    """What :func:`validate_sounds` needs, where words are as many as a model writes."""
    longest = _original(against, progress).anatomy.max_positions
    return validate_needs(
        subject,
        against,
        windows=len(files),
        length=longest,
        sentences=1,
        replies=len(files),
        new_tokens=min(NEW_TOKENS, longest),
        memory=available_memory(max_memory),
        progress=progress,
    )


def shown_sounds(folder: str | Path | None, count: int, placement: Placement) -> list[Path]:
    """At most ``count`` distinct sounds in ``folder``, spread over it or the first ones."""
    if folder is None:
        raise InputError(
            "a model that hears is compared on sounds, and none are given",
            fix="pass --audio FOLDER, with WAV files that it was not calibrated with, and beside each "
            "NAME.wav what is said in it as NAME.txt",
        )
    found = sorted(distinct_files(sound_files(Path(folder))).values())
    return [found[index] for index in chosen(len(found), min(count, len(found)), placement)]


@dataclass(frozen=True)
class Said:
    """A ``sound [samples]``, and what is written of it: the tokens in ``front``, which nobody asks about, and
    those that follow, of which the first is given.
    """

    sound: Samples
    front: Ids
    words: Ids


def _original(against: NamedModel, progress: Progress) -> WeightSource:
    if (against.path / MANIFEST).is_file():
        raise InputError(
            f"{against} is a bundle, and what hears is compared with a checkpoint",
            fix="compare with the model that it was made from",
        )
    return WeightSource.open(resolve(str(against), progress).path)


def _said(source: WeightSource, files: Sequence[Path]) -> list[Said]:
    hearing, words = source.anatomy.hearing, words_of(source)
    assert hearing is not None
    how = require_log_mel(hearing, source.reader.path)
    start, cut = GenerationTokens.of(source).start(), len(words.prompt)
    found = []
    for file in files:
        ids = np.concatenate([[start], words.ids(said_in(file))])[: words.longest]
        sound = read_sound(file, Sound(rate=how.rate, samples=how.samples))
        found.append(Said(sound, ids[:cut], ids[cut:]))
    return found


class _Hearing:
    """One model with a sound, as token metrics ask it."""

    def __init__(self, model: SoundSubject, said: Said, tokenizer: Tokenizer) -> None:
        self.model, self.said, self.tokenizer = model, said, tokenizer

    def logits(self, input_ids: Ids) -> NDArray[np.float32]:
        written = np.concatenate([self.said.front[None], input_ids], axis=1)
        return self.model.logits(self.said.sound, written)[:, len(self.said.front) :]


def _measured(
    subject: SoundSubject,
    original: SoundSubject,
    said: Sequence[Said],
    tokenizer: Tokenizer,
    progress: Progress,
) -> Measured:
    def written(one: Said) -> Written:
        theirs = _Hearing(original, one, tokenizer)
        mine = theirs if subject is original else _Hearing(subject, one, tokenizer)
        return Written(mine, theirs, one.words)

    scores = score_written(map(written, said), len(said), progress=progress)
    return Measured(scores, {"sounds": len(said), "predictions": sum(len(one.words) - 1 for one in said)})


def _with_replies(
    found: Measured,
    subject: SoundSubject,
    original: SoundSubject,
    said: Sequence[Said],
    names: Sequence[str],
    tokenizer: Tokenizer,
    cache: AnswerCache,
    progress: Progress,
) -> Measured:
    """``found`` with every metric of what both write of the sounds by themselves."""
    sounds = [one.sound for one in said]
    digests = [hashlib.sha256(sound.tobytes()).hexdigest() for sound in sounds]
    limits = NEW_TOKENS, tokenizer.vocab_size
    theirs = known_replies(cache, digests, len(digests), limits, lambda: _replies(original, sounds, progress))
    mine = theirs if subject is original else _replies(subject, sounds, progress)
    read, own = ([tokenizer.decode(ids) for ids in replies] for replies in (mine, theirs))
    scores = found.scores | reply_scores(mine, theirs, None, None) | answer_scores(read, own)
    return Measured(scores, found.workload, answers=sample_replies(names, own, read))


def _replies(model: SoundSubject, sounds: Sequence[Samples], progress: Progress) -> list[list[int]]:
    with progress.task("writing down what is said", len(sounds)) as task:
        writing = Replying(task, len(sounds), NEW_TOKENS)
        found = model.answers(sounds, NEW_TOKENS, writing.step)
        writing.end()
    return found
