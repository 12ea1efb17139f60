"""WAV files: their numbers, and whatever is none, is too long or lies, as typed errors."""

import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgepress.errors import InputError
from edgepress.runtime.audio.wav_file import MOST_BYTES, filled, read_sound, sound_files
from edgepress.runtime.bundle.preprocessing import Sound

from ...conftest import save_wav

HOW = Sound(rate=16_000, samples=32_000)
TONE = np.sin(np.arange(16_000) / 9).astype(np.float32)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """One second."""
    return save_wav(tmp_path / "tone.wav", TONE)


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def form(tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    width = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits))


def test_the_numbers_are_those_of_the_file(sound: Path) -> None:
    found = read_sound(sound, HOW)
    assert found.dtype == np.float32 and found.shape == TONE.shape
    with wave.open(str(sound)) as file:
        codes = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(found * 32_768, codes)


def test_chunks_that_nobody_knows_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    parts = chunk(b"LIST", b"ab"), form(), chunk(b"odd ", b""), chunk(b"data", b"\x00\x40" * 9)
    path.write_bytes(riff(*parts))
    assert read_sound(path, HOW).tolist() == [0.5] * 9


def test_silence_is_put_behind_what_is_shorter() -> None:
    rows = filled([np.ones(3, np.float32), np.ones(1, np.float32)], Sound(rate=8, samples=4))
    assert rows.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "text": b"no sound at all",
    "cut header": b"RIFF\x00",
    "no wave": b"RIFF\x04\x00\x00\x00AVI ",
    "no chunks": riff(),
    "data before its form": riff(chunk(b"data", b"\x00\x00"), form()),
    "form cut short": riff(chunk(b"fmt ", b"\x01\x00\x01")),
    "floats": riff(form(tag=3, bits=32), chunk(b"data", bytes(8))),
    "an unknown codec": riff(form(tag=85), chunk(b"data", bytes(8))),
    "no channels": riff(form(channels=0), chunk(b"data", bytes(8))),
    "no bits": riff(form(bits=0), chunk(b"data", bytes(8))),
    "many channels": riff(form(channels=4_000), chunk(b"data", bytes(8))),
    "no rate": riff(form(rate=0), chunk(b"data", bytes(8))),
    "a rate beyond all": riff(form(rate=2**32 - 1 >> 4), chunk(b"data", bytes(8))),
    "no samples": riff(form(), chunk(b"data", b"")),
    "more promised than there is": riff(form(), chunk(b"data", bytes(8), size=20_000)),
    "endless": riff(form(), chunk(b"data", bytes(8), size=2**32 - 1)),
    "half a sample": riff(form(), chunk(b"data", bytes(3), size=4)),
    "no data": riff(form()),
    "chunks without end": riff(form(), *[chunk(b"junk", b"")] * 5000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_sound_is_a_typed_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(InputError, match=r"a\.wav"):
        read_sound(path, HOW)


def test_every_cut_of_a_file_is_read_or_refused(sound: Path, tmp_path: Path) -> None:
    whole, path = sound.read_bytes(), tmp_path / "cut.wav"
    for end in (*range(60), len(whole) - 1, len(whole) - 2):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_sound(path, HOW)


def test_flipped_bytes_of_a_header_are_read_or_refused(sound: Path, tmp_path: Path) -> None:
    whole, path = sound.read_bytes(), tmp_path / "flipped.wav"
    for place in range(44):
        for bit in (1, 16, 128):
            changed = bytearray(whole)
            changed[place] ^= bit
            path.write_bytes(changed)
            try:
                found = read_sound(path, HOW)
            except InputError:
                continue
            assert 0 < len(found) <= HOW.samples and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 44_100}, "1 channels of 16 bits at 44100 Hz"),
        ({"channels": 2}, "2 channels of 16 bits at 16000 Hz"),
    ],
)
def test_nothing_is_resampled_or_mixed(options: dict[str, int], said: str, tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", TONE, **options)
    with pytest.raises(InputError, match=said) as raised:
        read_sound(path, HOW)
    assert "-ac 1 -ar 16000" in str(raised.value.fix)


def test_more_than_a_model_reads_is_refused(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", np.zeros(HOW.samples + 1))
    with pytest.raises(InputError, match=r"2\.0 seconds long, and the model reads 2") as raised:
        read_sound(path, HOW)
    assert "segment" in str(raised.value.fix)
    assert len(read_sound(save_wav(path, np.zeros(HOW.samples)), HOW)) == HOW.samples


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match="64 MB"):
        read_sound(path, HOW)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.wav")
    with pytest.raises(InputError, match="not a regular file"):
        read_sound(tmp_path / "a.wav", HOW)
    with pytest.raises(InputError, match="cannot read the sound"):
        read_sound(tmp_path / "absent.wav", HOW)


def test_the_sounds_of_a_folder(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    other = save_wav(tmp_path / "below" / "B.WAV", TONE)
    (tmp_path / "tone.txt").write_text("words")
    assert sound_files(tmp_path) == sorted([sound, other])
    for folder in (sound, tmp_path / "absent"):
        with pytest.raises(InputError, match="no directory"):
            sound_files(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no sounds"):
        sound_files(tmp_path / "none")
