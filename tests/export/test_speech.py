"""Whisper as pico models in their variants, against transformers: files in, words out, in every scheme; and
what is asked for that cannot be.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepress.compress.api import compress_model
from edgepress.compress.model.torch_model import load_model
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.spectra import spectra
from edgepress.errors import BundleError, CheckpointError, InputError, UnknownName
from edgepress.export.api import export_bundle
from edgepress.files.storage import read_json, sha256_file, write_json
from edgepress.runtime.api import TextModel, open_bundle
from edgepress.runtime.audio.wav_file import filled, read_sound
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine.speech_to_text import SpeechToTextModel
from edgepress.runtime.engine.text_to_text import TextToTextModel

from ..conftest import spoken_settings
from .exact import exact_session

pytestmark = pytest.mark.chain

NEW = 20
ENGLISH = {"is_multilingual": False, **dict.fromkeys(("lang_to_id", "task_to_id", "forced_decoder_ids"))}


@dataclass(frozen=True)
class Variant:
    """A pico Whisper with some settings, and what transformers is asked."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


TOKEN = {name.strip("<|>"): token for name, token in spoken_settings()["lang_to_id"].items()}
FORCED = [[1, TOKEN["fr"]], [2, spoken_settings()["task_to_id"]["translate"]]]
VARIANTS = [
    Variant("as it is"),
    Variant("a language that is asked for", asked={"language": "de"}),
    Variant("a task that is asked for", asked={"language": "fr", "task": "translate"}),
    Variant("a task alone", asked={"task": "translate"}),
    Variant("English alone", {"settings": ENGLISH}),
    Variant("settings of a language", {"settings": {"language": "german", "task": "translate"}}),
    Variant("settings of a code", {"settings": {"language": "<|fr|>", "forced_decoder_ids": None}}),
    Variant("settings of a task", {"settings": {"task": "transcribe", "forced_decoder_ids": None}}),
    Variant("a prompt of the older kind", {"settings": {"forced_decoder_ids": FORCED}}),
    Variant("nothing forced", {"settings": {"forced_decoder_ids": None}}),
    Variant("nothing suppressed", {"settings": dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"))}),
    Variant("more bins, four seconds", {"num_mel_bins": 80, "max_source_positions": 200}),
    Variant("relu", {"activation_function": "relu", "decoder_layers": 1}),
]


def files(sounds: Path) -> list[Path]:
    return sorted(sounds.glob("*.wav"))[:4]


def features(path: Path, sounds: list[Path]) -> torch.Tensor:
    """What transformers' own extractor, read from the model's folder, makes of files."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor.from_pretrained(path)
    hearing = WeightSource.open(path).anatomy.hearing
    assert hearing is not None and hearing.log_mel is not None
    rows = [read_sound(file, open_sound(hearing.log_mel)) for file in sounds]
    found: torch.Tensor = extractor(rows, sampling_rate=16_000, return_tensors="pt").input_features
    assert np.array_equal(found.numpy(), spectra(filled(rows, open_sound(hearing.log_mel)), hearing.log_mel))
    return found


def open_sound(how: Any) -> Any:
    from edgepress.runtime.bundle.preprocessing import Sound

    return Sound(rate=how.rate, samples=how.samples)


def reference(path: Path) -> Any:
    from transformers import AutoModelForSpeechSeq2Seq

    return AutoModelForSpeechSeq2Seq.from_pretrained(path).eval()


def answered(model: Any, read: torch.Tensor, end: int, **asked: Any) -> list[int]:
    """What transformers writes of a sound, the end with it."""
    found: list[int] = model.generate(read, max_new_tokens=NEW, do_sample=False, num_beams=1, **asked)[
        0
    ].tolist()
    return found if len(found) == NEW else [*found, end]


def until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


# Each is made of what others here have.
LATER = ("a task alone", "settings of a code", "settings of a task")


@pytest.mark.parametrize(
    "variant",
    [pytest.param(one, marks=pytest.mark.slow if one.name in LATER else (), id=one.name) for one in VARIANTS],
)
def test_words_are_those_of_transformers(
    variant: Variant, make_whisper: Callable[..., Path], pico_sounds: Path, tmp_path: Path
) -> None:
    path = make_whisper(tmp_path / "m", **variant.changes)
    bundle = export_bundle(path, output=tmp_path / "b", operators="standard")
    model, theirs, given = open_bundle(bundle), reference(path), files(pico_sounds)
    assert isinstance(model, SpeechToTextModel)
    end, read = spoken_settings()["eos_token_id"], features(path, given)
    want = [until(answered(theirs, one[None], end, **variant.asked), end) for one in read]
    found = [list(model.generate(file, max_new_tokens=NEW, **variant.asked).token_ids) for file in given]
    assert found == want
    together = model.generate_batch(given, max_new_tokens=NEW, **variant.asked)
    assert [list(reply.token_ids) for reply in together] == want
    parity = read_json(bundle / "manifest.json")["parity"]
    assert parity["status"] == "passed" and parity["text"]["sounds"] == "built-in"
    assert parity["float"]["max_abs_difference"] < 1e-4
    stored = sum(parameter.numel() for parameter in theirs.parameters())
    assert read_json(bundle / "manifest.json")["weights"]["params"] == stored


def test_states_and_logits_are_those_of_transformers(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    model = open_bundle(export_bundle(pico_whisper, output=tmp_path / "b"))
    assert isinstance(model, SpeechToTextModel)
    theirs, given = reference(pico_whisper), files(pico_sounds)
    read, written = features(pico_whisper, given), torch.randint(0, 30, (4, 9), generator=torch.Generator())
    model.model.hear(model._samples(given))
    with torch.no_grad():
        states = theirs.model.encoder(read).last_hidden_state
        for index, block in enumerate(theirs.model.decoder.layers):
            for kind, linear in (("key", block.encoder_attn.k_proj), ("value", block.encoder_attn.v_proj)):
                found = model.model._read[f"cross.{index}.{kind}"].numpy()
                assert np.abs(found - linear(states).numpy()).max() < 1e-4
        want = theirs(input_features=read, decoder_input_ids=written).logits.numpy()
    parts = [model.model.write(part) for part in np.split(written.numpy(), [1, 5], axis=1)]
    assert np.abs(np.concatenate(parts, axis=1) - want).max() < 1e-4


def test_as_many_words_as_a_model_writes_are_the_default(
    pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    model = open_bundle(export_bundle(pico_whisper, output=tmp_path / "b", validate=False))
    assert isinstance(model, SpeechToTextModel)
    file = files(pico_sounds)[0]
    found, end = model.generate(file), spoken_settings()["eos_token_id"]
    whole = reference(pico_whisper).generate(features(pico_whisper, [file]))[0].tolist()
    assert [token for token in found.token_ids if token != end] == whole
    assert found.prompt_tokens == 4
    assert model.generate(read_sound(file, model.sound)).token_ids == found.token_ids


@pytest.mark.parametrize(
    ("scheme", "operators"),
    [
        ("W8A8", "standard"),
        ("W4A16-g32", "edgepress"),
        ("W3A16-g16", "standard"),
        pytest.param("W8A8", "edgepress", marks=pytest.mark.slow),
        pytest.param("W4A16-g32", "standard", marks=pytest.mark.slow),
        pytest.param("W3A16-g16", "edgepress", marks=pytest.mark.slow),
    ],
)
def test_codes_are_proven_and_compute_what_they_stand_for(
    scheme: str, operators: str, pico_whisper: Path, pico_sounds: Path, tmp_path: Path
) -> None:
    made = compress_model(str(pico_whisper), scheme=scheme, output=tmp_path / "c")
    bundle = export_bundle(made, output=tmp_path / "b", operators=operators)
    parity = read_json(bundle / "manifest.json")["parity"]
    assert parity["quantized"]["kl_mean"] < 0.01
    assert parity["codes"]["max_abs_difference"] < 1e-4
    model = open_bundle(bundle)
    assert isinstance(model, SpeechToTextModel)
    given, written = files(pico_sounds), torch.randint(0, 30, (4, 9), generator=torch.Generator())
    with torch.no_grad():
        want = load_model(made, embedding=True, activations=False)(
            input_features=features(made, given), decoder_input_ids=written
        ).logits
    samples = model._samples(given)
    with exact_session(bundle / "encoder.onnx") as encoder, exact_session(bundle / "model.onnx") as decoder:
        exact = type(model.model)(encoder, decoder, model.model.section)
        exact.hear(samples)
        assert np.abs(exact.write(written.numpy()) - want.numpy()).max() < 1e-3


def test_what_was_heard_is_kept_in_codes(pico_whisper: Path, pico_sounds: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\npasses: [{pass: kv_cache}]\nembedding: null\n")
    options: dict[str, Any] = {"calibration": str(pico_sounds), "samples": 8}
    made = compress_model(str(pico_whisper), recipe=str(recipe), output=tmp_path / "c", **options)
    bundle = export_bundle(made, output=tmp_path / "b")
    manifest = read_json(bundle / "manifest.json")
    assert manifest["encoder_decoder"]["kv_scheme"] == "KV8-channel"
    assert manifest["parity"]["codes"]["max_abs_difference"] < 1e-4
    model = open_bundle(bundle)
    assert isinstance(model, SpeechToTextModel)
    given, written = files(pico_sounds), torch.randint(0, 30, (4, 9), generator=torch.Generator())
    model.model.hear(model._samples(given))
    assert {value.data_type() for value in model.model._read.values()} == {"tensor(int8)"}
    found = np.concatenate([model.model.write(part) for part in np.split(written.numpy(), [1, 5], axis=1)], 1)
    with torch.no_grad():
        read = {"input_features": features(made, given), "decoder_input_ids": written}
        want, far = (load_model(made, cache=codes)(**read).logits.numpy() for codes in (True, False))
    assert np.abs(found - want).mean() < 0.1 * np.abs(want - far).mean()
    assert model.generate(given[0], max_new_tokens=NEW).token_ids


@pytest.fixture(scope="module")
def bundle(pico_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_whisper, output=tmp_path_factory.mktemp("speech") / "b", validate=False)


@pytest.fixture(scope="module")
def english(make_whisper: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("english")
    return export_bundle(make_whisper(folder / "m", settings=ENGLISH), output=folder / "b", validate=False)


def test_what_a_model_does_not_know_is_refused(bundle: Path, english: Path, pico_sounds: Path) -> None:
    model, file = open_bundle(bundle), files(pico_sounds)[0]
    assert isinstance(model, SpeechToTextModel)
    with pytest.raises(UnknownName, match="unknown language 'xx'"):
        model.generate(file, language="xx")
    with pytest.raises(UnknownName, match="unknown task 'sing'"):
        model.generate(file, task="sing")
    with pytest.raises(InputError, match="do not fit"):
        model.generate(file, max_new_tokens=62)
    for samples in (np.zeros(0), np.zeros((2, 9)), np.zeros(32_001), np.full(9, np.nan)):
        with pytest.raises(InputError, match="no sound that this model reads"):
            model.generate(samples.astype(np.float32))
    with pytest.raises(InputError, match="no sounds"):
        model.generate_batch([])
    other = open_bundle(english)
    assert isinstance(other, SpeechToTextModel)
    for asked in ({"language": "en"}, {"task": "translate"}):
        with pytest.raises(InputError, match="to choose"):
            other.generate(file, **asked)  # type: ignore[arg-type]


def test_other_uses_of_the_bundle_are_refused(bundle: Path, pico_t5: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hears sounds") as raised:
        TextToTextModel(Bundle.open(bundle))
    assert "--audio FILE" in str(raised.value.fix)
    with pytest.raises(InputError, match="writes down what is said"):
        TextModel(Bundle.open(bundle))
    text = export_bundle(pico_t5, output=tmp_path / "t5", validate=False)
    with pytest.raises(InputError, match="hears nothing"):
        SpeechToTextModel(Bundle.open(text))


def _forged(bundle: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(bundle, folder)
    manifest = read_json(folder / "manifest.json")
    section = manifest["encoder_decoder"]
    for name, value in changes.items():
        (section["sound"] if name in section["sound"] else section)[name] = value
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": [[]]},
        {"prompt": [[1 << 20]]},
        {"prompt": [[3]] * 65},
        {"first_suppressed_ids": [1 << 20]},
        {"languages": {"en": 1 << 20}},
        {"languages": {"en": "x"}},
        {"tasks": {"x" * 99: 3}},
        {"rate": 0},
        {"samples": 1 << 40},
        {"samples": 3},
        {"sound": None},
    ],
    ids=json.dumps,
)
def test_a_manifest_that_lies_is_refused(changes: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        open_bundle(_forged(bundle, tmp_path / "b", **changes))


def test_graphs_are_files_of_the_manifest(bundle: Path) -> None:
    files_of = read_json(bundle / "manifest.json")["files"]
    assert files_of["encoder.onnx"]["sha256"] == sha256_file(bundle / "encoder.onnx")


@pytest.mark.parametrize("settings", [{"decoder_start_token_id": None}])
def test_no_start_is_refused_before_anything_is_written(
    settings: dict[str, Any], make_whisper: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_whisper(tmp_path / "m", settings=settings)
    config = read_json(path / "config.json")
    write_json(path / "config.json", config | dict.fromkeys(("decoder_start_token_id", "bos_token_id")))
    generation = read_json(path / "generation_config.json")
    write_json(path / "generation_config.json", {**generation, "bos_token_id": None})
    with pytest.raises(CheckpointError, match="begin with"):
        export_bundle(path, output=tmp_path / "o")
    assert not (tmp_path / "o").exists()
