"""From a folder of sounds to words, through the command line's own entry."""

import json
from pathlib import Path

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.export.api import export_bundle
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.speech_to_text import SpeechToTextModel

from ..conftest import save_wav

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def bundle(pico_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_whisper, output=tmp_path_factory.mktemp("hears") / "b", validate=False)


def test_from_a_folder_of_sounds_to_what_is_said(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, heard = str(tmp_path / "out"), str(sorted(pico_sounds.glob("*.wav"))[0])
    folder = ["--audio", str(pico_sounds), "--samples", "8"]
    assert (
        run(["compress", str(pico_whisper), "--scheme", "W4A16", "--group-size", "16", *folder, "-o", out])
        == 0
    )
    assert "gptq" in capsys.readouterr().out
    assert run(["export", out, "-o", str(tmp_path / "bundle")]) == 0
    capsys.readouterr()
    assert run(["generate", str(tmp_path / "bundle"), "--audio", heard, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["new_tokens"] == 60 or found["finish_reason"] == "eos"
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "generate . --audio speech.wav" in card and "automatic-speech-recognition" in card


def test_language_task_and_length_are_asked_for(
    bundle: Path, pico_sounds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = sorted(pico_sounds.glob("*.wav"))[1]
    words = ["generate", str(bundle), "--audio", str(file), "--max-new-tokens", "9"]
    model = open_bundle(bundle)
    assert isinstance(model, SpeechToTextModel)
    asked = {"language": "fr", "task": "translate"}
    for more, options in ((["--language", "fr", "--task", "translate"], asked), ([], {})):
        assert run([*words, *more, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["token_ids"]
        assert found == list(model.generate(file, max_new_tokens=9, **options).token_ids)  # type: ignore[arg-type]


def test_what_cannot_be_heard_says_so(
    bundle: Path,
    pico_t5: Path,
    pico_sounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, text = str(sorted(pico_sounds.glob("*.wav"))[0]), tmp_path / "t5"
    export_bundle(pico_t5, output=text, validate=False)
    long = str(save_wav(tmp_path / "long.wav", np.zeros(99_000)))
    other = str(save_wav(tmp_path / "other.wav", np.zeros(99), rate=44_100))
    for words, said in (
        (["--audio", long], "6.2 seconds long, and the model reads 2"),
        (["--audio", other], "at 44100 Hz"),
        (["--audio", str(tmp_path / "absent.wav")], "cannot read the sound"),
        (["--audio", file, "--language", "xx"], "unknown language"),
        (["--audio", file, "--input", "a"], "give --prompt"),
        (["--audio", file, "--chat"], "chat template"),
        (["--input", "a"], "generate BUNDLE --audio FILE"),
        (["--prompt", "a"], "generate BUNDLE --audio FILE"),
        (["--input", "a", "--language", "de"], "are of --audio"),
        ([], "give --prompt"),
    ):
        assert run(["generate", str(bundle), *words]) == 2
        assert said in " ".join(capsys.readouterr().err.split()), words
    assert run(["generate", str(text), "--audio", file]) == 2
    assert "hears nothing" in " ".join(capsys.readouterr().err.split())


def test_verbs_that_measure_text_say_that_it_hears(
    bundle: Path,
    pico_whisper: Path,
    pico_text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, text = str(pico_whisper), ["--text", str(pico_text)]
    budget = ["--max-disk", "1MB", *text, "-o", str(tmp_path / "o")]
    for words in (
        ["fit", model, *budget],
        ["validate", str(bundle), "--against", model, *text],
        ["validate", model, "--against", model, *text],
    ):
        assert run(words) != 0
        said = " ".join(capsys.readouterr().err.split())
        says = ("hears", "encoder–decoder", "reads sounds", "directory of sounds")
        assert any(one in said for one in says), words
        assert "Traceback" not in said
