"""Calibration with sounds: which are drawn, what their decoder writes, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.compress.job import CalibrationChoice, Job
from edgepress.compress.text.calibration import Calibration
from edgepress.compress.text.probe_text import TEXTS
from edgepress.errors import CalibrationError, EdgepressError, InputError
from edgepress.files.storage import read_json, write_json
from edgepress.terminal.progress import Silent

from ...conftest import save_sounds, save_wav, spoken_settings

pytestmark = pytest.mark.chain

SETTINGS = spoken_settings()
ENGLISH, TRANSCRIBE = SETTINGS["lang_to_id"]["<|en|>"], SETTINGS["task_to_id"]["transcribe"]
FRONT = [ENGLISH, TRANSCRIBE, SETTINGS["no_timestamps_token_id"]]


def read(model: Path, sounds: Path, **options: object) -> Calibration:
    options = {"samples": 6, **options}
    choice = CalibrationChoice(source=str(sounds), **options)  # type: ignore[arg-type]
    found: Calibration = Job(str(model), None, "W4A16-g32", None, choice, Silent()).calibration()
    return found


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return save_sounds(tmp_path / "wav", 6)


def test_sounds_are_read_as_transformers_reads_them_with_what_is_said(
    pico_whisper: Path, pico_sounds: Path
) -> None:
    found = read(pico_whisper, pico_sounds)
    assert (found.samples, found.length, found.documents, found.effective_tokens) == (6, 100, 12, 600)
    (batch,) = found.batches
    assert batch.input_ids.shape == (6, 16, 200) and batch.attention_mask.shape == (6, 100)
    assert batch.answers is not None
    for ids, mask in zip(batch.answers.input_ids, batch.answers.attention_mask, strict=True):
        row = ids[mask.bool()].tolist()
        assert row[:3] == FRONT and row[-1] == SETTINGS["eos_token_id"] and len(row) == 16
    again, other = read(pico_whisper, pico_sounds), read(pico_whisper, pico_sounds, seed=1)
    assert again.sha256 == found.sha256 != other.sha256
    assert again.text_sha256 == other.text_sha256


def test_words_may_say_their_own_language(pico_whisper: Path, sounds: Path) -> None:
    for file in sounds.glob("*.txt"):
        file.write_text("<|de|><|transcribe|><|notimestamps|> river boats\n")
    (batch,) = read(pico_whisper, sounds).batches
    assert batch.answers is not None
    de, (_, *others) = SETTINGS["lang_to_id"]["<|de|>"], FRONT
    assert batch.answers.input_ids[:, :3].tolist() == [[de, *others]] * 6


def test_some_of_them_keep_what_is_said_in_each(pico_whisper: Path, pico_sounds: Path) -> None:
    found = read(pico_whisper, pico_sounds)
    some = found.spread(2)
    (batch,), (whole,) = some.batches, found.batches
    assert torch.equal(batch.input_ids, whole.input_ids[[0, 3]])
    assert batch.answers is not None and whole.answers is not None
    assert torch.equal(batch.answers.input_ids, whole.answers.input_ids[[0, 3]])
    assert some.sha256 != found.sha256 and some.effective_tokens == 200
    assert some.written_tokens == int(batch.answers.attention_mask.sum()) < some.effective_tokens


def test_words_that_are_too_long_are_cut(pico_whisper: Path, sounds: Path) -> None:
    (sounds / "00.txt").write_text("river " * 200)
    found = read(pico_whisper, sounds)
    assert found.truncated == 1
    assert max(int(batch.written().input_ids.shape[1]) for batch in found.batches) == 64


def test_what_is_missing_is_named(pico_whisper: Path, sounds: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"6 distinct sounds, 7 samples"):
        read(pico_whisper, sounds, samples=7)
    shutil.copy(sounds / "00.wav", sounds / "99.wav")
    with pytest.raises(CalibrationError, match=r"6 distinct sounds"):
        read(pico_whisper, sounds, samples=7)
    (sounds / "99.wav").unlink()
    (sounds / "03.txt").write_text("  \n")
    with pytest.raises(CalibrationError, match=r"03\.txt is empty"):
        read(pico_whisper, sounds)
    (sounds / "03.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CalibrationError, match=r"cannot read .*03\.txt"):
        read(pico_whisper, sounds)
    (sounds / "03.txt").unlink()
    with pytest.raises(CalibrationError, match=r"no 03\.txt beside it") as raised:
        read(pico_whisper, sounds)
    assert "--audio 03.wav" in str(raised.value.fix)
    (sounds / "03.txt").write_text(TEXTS[0])
    with pytest.raises(CalibrationError, match="every step is measured on"):
        read(pico_whisper, sounds)
    with pytest.raises(InputError, match="no directory of sounds"):
        read(pico_whisper, tmp_path / "absent")
    with pytest.raises(InputError, match="no field"):
        read(pico_whisper, sounds, field="other")


def test_a_sound_that_cannot_be_read_is_named(pico_whisper: Path, sounds: Path) -> None:
    save_wav(sounds / "02.wav", np.zeros(9), rate=8_000)
    with pytest.raises(InputError, match=r"02\.wav has 1 channels of 16 bits at 8000 Hz"):
        read(pico_whisper, sounds)


def test_without_sounds_the_error_says_how_they_are_given(pico_whisper: Path) -> None:
    from edgepress.compress.api import plan_model

    with pytest.raises(CalibrationError, match="needs sounds") as raised:
        plan_model(str(pico_whisper), scheme="W8A8_STATIC")
    assert "--audio FOLDER" in str(raised.value.fix)


def test_a_tokenizer_of_another_model(pico_whisper: Path, pico_sounds: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_whisper, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    content = read_json(file)
    content["model"]["vocab"] |= {f"extra{index}": 41 + index for index in range(9)}
    write_json(file, content)
    with pytest.raises(EdgepressError, match="rows"):
        read(tmp_path / "m", pico_sounds)
