"""The files that models are given which read no text: images; or sounds, each with what is said in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...compress.model.hearing.feature_extractor import require_log_mel
from ...compress.model.weights import WeightSource
from ...compress.text.calibration_audio import said_in
from ...runtime.audio.wav_file import read_sound, sound_files
from ...runtime.bundle.preprocessing import Sound
from ...runtime.images.image_file import image_files, open_image
from .file_parts import FileKind


def files_of(source: WeightSource) -> FileKind:
    """Those that the model ``source`` reads."""
    hearing = source.anatomy.hearing
    if hearing is None:
        return FileKind("images", image_files, open_image)
    how = require_log_mel(hearing, source.reader.path)
    read = partial(read_sound, how=Sound(rate=how.rate, samples=how.samples))
    return FileKind("sounds", sound_files, read, _words)


def _words(sound: Path) -> list[Path]:
    """The file that says what is said in it; raises CalibrationError where there is none."""
    said_in(sound)
    return [sound.with_suffix(".txt")]
