"""A WAV file as the numbers that a model hears, with what is none, or is too long, refused.

The standard library's ``wave`` reads it: one channel of 16-bit PCM. Nothing is resampled or mixed: that has
many right answers, which ``ffmpeg`` and its like know better.
"""

import wave
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...files.storage import read_at_most
from ...files.third_party_errors import third_party_errors_are_typed
from ..bundle.preprocessing import Sound

SUFFIX = ".wav"
MOST_BYTES = 64 << 20
_FULL_SCALE = np.float32(1 << 15)
Samples = NDArray[np.float32]


def read_sound(path: Path | str, how: Sound) -> Samples:
    """The sound in the file ``path``, ``[samples]`` from -1 to 1."""
    data = read_at_most(Path(path), MOST_BYTES, "sound", fix="cut it")
    with third_party_errors_are_typed(lambda why: _unreadable(path, why)), wave.open(BytesIO(data)) as file:
        kind = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
        count = file.getnframes()
        if kind == (1, 16, how.rate) and 0 < count <= how.samples:
            found = file.readframes(count)
    if kind != (1, 16, how.rate):
        raise _of_another_kind(path, kind, how)
    if not 0 < count <= how.samples:
        raise _of_another_length(path, count, how)
    if len(found) != 2 * count:
        raise _unreadable(path, f"it ends after {len(found) // 2} of {count} samples")
    return np.frombuffer(found, "<i2").astype(np.float32) / _FULL_SCALE


def filled(sounds: Sequence[Samples], how: Sound) -> Samples:
    """``sounds`` with silence behind them: ``[len(sounds), samples]``, as many as a model reads."""
    rows = np.zeros((len(sounds), how.samples), np.float32)
    for row, sound in zip(rows, sounds, strict=True):
        row[: len(sound)] = sound
    return rows


def sound_files(path: Path) -> list[Path]:
    """The WAV files in the directory ``path`` and those below it, by name."""
    if not path.is_dir():
        raise InputError(f"there is no directory of sounds at {path}", fix="check the path")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() == SUFFIX and file.is_file())
    if not found:
        raise InputError(f"the directory {path} holds no sounds", fix=f"give one with {SUFFIX} files")
    return found


def _unreadable(path: Path | str, why: str) -> InputError:
    return InputError(
        f"{path} is no sound that can be read", why=why, fix="give a whole WAV file of 16-bit PCM"
    )


def _of_another_kind(path: Path | str, kind: tuple[int, int, int], how: Sound) -> InputError:
    channels, bits, rate = kind
    return InputError(
        f"{path} has {channels} channels of {bits} bits at {rate} Hz, and one of 16 bits at {how.rate} Hz is "
        "read",
        why="nothing is resampled or mixed",
        fix=f"convert it: ffmpeg -i FILE -ac 1 -ar {how.rate} -c:a pcm_s16le OUT.wav",
    )


def _of_another_length(path: Path | str, count: int, how: Sound) -> InputError:
    if not count:
        return InputError(f"{path} holds no sound", fix="give a WAV file with samples")
    longest = how.samples / how.rate
    return InputError(
        f"{path} is {count / how.rate:.1f} seconds long, and the model reads {longest:g}",
        why="what is longer would have to be cut, and where is not said",
        fix=f"cut it where nobody speaks: ffmpeg -i FILE -f segment -segment_time {longest:g} OUT%03d.wav",
    )
