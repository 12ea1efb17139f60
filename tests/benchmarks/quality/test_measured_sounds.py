"""Models that hear under validation: against themselves, rounded, as bundles, and what cannot be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepress.benchmarks.quality.validate import plan_validation, validate_bundle
from edgepress.benchmarks.records.sound_subjects import open_sound_subject
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.model.hearing.speech_prompt import words_of
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.spectra import spectra
from edgepress.errors import CalibrationError, InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.audio.wav_file import filled, read_sound
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.bundle.preprocessing import Sound
from edgepress.runtime.engine.speech_to_text import SpeechToTextModel
from edgepress.terminal.progress import Silent

from ...conftest import save_sounds, spoken_settings

pytestmark = pytest.mark.chain

HOW = Sound(rate=16_000, samples=32_000)


@pytest.fixture(scope="module")
def hears(pico_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What 3 bits leave of a Whisper, as a checkpoint and as a bundle."""
    root = tmp_path_factory.mktemp("hears")
    compress_model(str(pico_whisper), scheme="W3A16", group_size=16, output=root / "out")
    export_bundle(root / "out", output=root / "bundle", validate=False)
    return root


def wanted(mine: Path, theirs: Path, sounds: Path) -> float:
    """The mean KL divergence over the words of all sounds, from transformers' modules."""
    source = WeightSource.open(theirs)
    words, hearing = words_of(source), source.anatomy.hearing
    assert hearing is not None and hearing.log_mel is not None
    models, found = [load_model(path) for path in (mine, theirs)], []
    for file in sorted(sounds.glob("*.wav")):
        ids = words.ids(file.with_suffix(".txt").read_text())
        written = torch.tensor([[spoken_settings()["decoder_start_token_id"], *ids]])
        read = spectra(filled([read_sound(file, HOW)], HOW), hearing.log_mel)
        with torch.no_grad():
            given = {"input_features": read, "decoder_input_ids": written[:, :-1]}
            ours, own = (model(**given).logits[0, 3:].double().log_softmax(-1) for model in models)
        found.append((own.exp() * (own - ours)).sum(-1).numpy())
    return float(np.concatenate(found).mean())


def test_words_are_compared_token_by_token(
    hears: Path, pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    record = tmp_path / "runs.jsonl"
    line = validate_bundle(hears / "out", pico_whisper, text=pico_sounds, record=record)
    want = wanted(hears / "out", pico_whisper, pico_sounds)
    assert line.metrics["kl"].value == pytest.approx(want, rel=1e-4)
    assert line.workload["sounds"] == 12 and line.workload["predictions"] == 12 * 13
    assert line.protocol["interval"].startswith("percentile bootstrap over sounds")
    assert len(record.read_text().splitlines()) == 2
    bundle = validate_bundle(hears / "bundle", pico_whisper, text=pico_sounds)
    assert bundle.metrics["kl"].value == pytest.approx(line.metrics["kl"].value, rel=0.1)
    assert 0 < bundle.metrics["top1_agreement"].value <= 1
    assert bundle.metrics["same_replies"].n == line.metrics["loops"].n == 12
    same = validate_bundle(pico_whisper, pico_whisper, text=pico_sounds, sentences=5)
    assert same.metrics["kl"].value == 0 and same.workload["sounds"] == 5
    assert same.metrics["same_replies"].value == 1 and len(same.answers) == 3


def test_both_runtimes_write_the_same_of_a_sound(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    bundle = export_bundle(pico_whisper, output=tmp_path / "b", validate=False)
    line = validate_bundle(bundle, pico_whisper, text=pico_sounds, sentences=7)
    assert line.metrics["same_replies"].value == 1
    assert line.metrics["loops"].value == line.compare["original"]["loops"]["value"]  # type: ignore[index]
    original = open_sound_subject(pico_whisper, device="cpu", threads=1, progress=Silent())
    sound = read_sound(sorted(pico_sounds.glob("*.wav"))[0], HOW)
    (alone,) = SpeechToTextModel(Bundle.open(bundle)).generate_batch([sound], max_new_tokens=9)
    assert original.answers([sound], 9) == [list(alone.token_ids)]
    silent = validate_bundle(bundle, pico_whisper, text=pico_sounds, sentences=2, replies=False)
    assert "loops" not in silent.metrics


def test_the_verb_compares_and_gates(
    hears: Path,
    pico_whisper: Path,
    pico_sounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where the run file goes
    words = ["validate", str(hears / "bundle"), "--against", str(pico_whisper)]
    heard = ["--audio", str(pico_sounds)]
    assert run([*words, *heard, "--max-kl", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gates"][0]["passed"]
    assert run([*words, *heard, "--max-kl", "0"]) == 1
    assert "12 sounds of" in " ".join(capsys.readouterr().out.split())
    assert run([*words, *heard, "--dry-run"]) == 0
    capsys.readouterr()
    assert run(words) == 2
    assert "pass --audio FOLDER" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said(
    hears: Path, pico_whisper: Path, pico_t5: Path, pico_sounds: Path, pico_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is a bundle"):
        validate_bundle(hears / "bundle", hears / "bundle", text=pico_sounds)
    for measure in (plan_validation, validate_bundle):
        with pytest.raises(InputError, match="reads text and hears nothing"):
            measure(pico_t5, pico_whisper, text=pico_sounds)
        with pytest.raises(InputError, match="hears sounds and reads no text"):
            measure(hears / "bundle", pico_t5, text=pico_text)
        with pytest.raises(InputError, match="slices are of text"):
            measure(hears / "bundle", pico_whisper, text=pico_sounds, slices=["languages"])
    with pytest.raises(InputError, match="none are given"):
        plan_validation(hears / "bundle", pico_whisper)
    folder = save_sounds(tmp_path / "wav", 3)
    (folder / "01.txt").unlink()
    with pytest.raises(CalibrationError, match=r"no 01\.txt beside it"):
        validate_bundle(hears / "bundle", pico_whisper, text=folder)
    assert plan_validation(hears / "bundle", pico_whisper, text=folder).memory > 0
