"""What the file of a feature extractor may say, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.hearing.feature_extractor import log_mel_of, require_log_mel
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.log_mel import LogMel
from edgepress.errors import CheckpointError, EdgepressError, InputError
from edgepress.files.storage import read_json, write_json

NAMED = {"feature_extractor_type": "WhisperFeatureExtractor"}
USUAL = LogMel(16_000, 480_000, 400, 160, 80)


def said(folder: Path, settings: Any, name: str = "preprocessor_config.json") -> LogMel | None:
    write_json(folder / name, settings)
    return log_mel_of(folder)


def test_what_is_left_out_is_whispers_own(tmp_path: Path) -> None:
    assert log_mel_of(tmp_path) is None
    assert said(tmp_path, NAMED) == USUAL
    assert (USUAL.frames, USUAL.seconds) == (3000, 30)
    # Older files also have the filters, which are computed.
    assert said(tmp_path, {**NAMED, "mel_filters": [[0.0]], "nb_max_frames": 9, "dither": 0.0}) == USUAL


def test_the_newer_file_has_it_in_a_section(tmp_path: Path) -> None:
    found = said(tmp_path, {"feature_extractor": {**NAMED, "feature_size": 128}}, "processor_config.json")
    assert found is not None and found.bins == 128


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}, "SeamlessM4T"),
        ({"feature_extractor_type": None}, "None"),
        ({"dither": 0.1}, "dither"),
        ({"padding_value": 1.0}, "padding_value"),
        ({"do_normalize": True}, "do_normalize"),
        ({"sampling_rate": 8000}, "8000"),
        ({"sampling_rate": 10**9}, "usable"),
        ({"chunk_length": 0}, "usable"),
        ({"chunk_length": 2.5}, "usable"),
        ({"chunk_length": 10**9}, "usable"),
        ({"n_fft": 401}, "windows of 401"),
        ({"n_fft": 10**7}, "usable"),
        ({"hop_length": -1}, "usable"),
        ({"hop_length": 201}, "201 apart"),
        ({"feature_size": "80"}, "usable"),
        ({"feature_size": 10**6}, "usable"),
    ],
)
def test_other_settings_are_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as raised:
        said(tmp_path, NAMED | change)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    "content", ["[]", '{"feature_extractor": 3}', "{", "\ud800".encode("utf-8", "replace")]
)
def test_files_that_are_no_settings(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InputError):
        log_mel_of(tmp_path)


@pytest.mark.chain
def test_a_model_that_reads_other_spectra(pico_whisper: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_whisper, tmp_path / "m")
    file = tmp_path / "m" / "preprocessor_config.json"
    settings = read_json(file)
    for change in ({"feature_size": 80}, {"chunk_length": 30}):
        write_json(file, settings | change)
        with pytest.raises(CheckpointError, match="and the model reads 200 of 16"):
            WeightSource.open(tmp_path / "m")
    file.unlink()
    hearing = WeightSource.open(tmp_path / "m").anatomy.hearing
    assert hearing is not None
    with pytest.raises(EdgepressError, match="how its sounds become spectra"):
        require_log_mel(hearing, tmp_path / "m")
