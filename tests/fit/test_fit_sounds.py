"""``fit`` on models that hear: budgets of KL, bytes and speed hold on sounds that decided nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.quality.validate import validate_bundle
from edgepress.benchmarks.records import record as records
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.bundle_size import bundle_bytes
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import check_tree, hash_tree
from edgepress.files.storage import read_json, sha256_file
from edgepress.fit import search as search_module
from edgepress.runtime.bundle.bundle import Bundle

from ..conftest import save_sounds

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]
Fit = Callable[..., int]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sounds, two of which are the same."""
    folder = save_sounds(tmp_path_factory.mktemp("sounds") / "wav", 36)
    for suffix in (".wav", ".txt"):
        shutil.copyfile(folder / f"07{suffix}", folder / f"77{suffix}")
    return folder


@pytest.fixture(scope="module")
def model(make_whisper: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper that writes fewer tokens than are timed of others."""
    return make_whisper(tmp_path_factory.mktemp("whisper") / "model", max_target_positions=96)


@pytest.fixture
def fit(sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """``edgepress fit`` of a model on ``sounds``, rounded alone, into ``tmp_path / "o"``."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])

    def call(model: Path, *arguments: str) -> int:
        given = ["--audio", str(sounds), "--samples", "16", "--threads", "1", "--json"]
        return run(["fit", str(model), *given, "-o", str(tmp_path / "o"), *arguments])

    return call


def found_by(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("table")
def test_all_budgets_hold_and_the_recipe_repeats_it(
    fit: Fit, model: Path, sounds: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert fit(model, "--max-disk", "1GB", "--dry-run") == 0
    planned = found_by(capsys)
    assert planned["judged"] == "KL" and planned["compress_seconds"]["awq, gptq"] > 0
    bound = round(1.1 * planned["smallest"])
    budgets = ["--max-disk", f"{bound}B", "--max-memory", "2GB", "--max-kl", "2"]
    assert fit(model, *budgets, "--min-decode", "1", "--max-first-token", "20s") == 0
    found, out = found_by(capsys), tmp_path / "o"
    bundle = Bundle.open(out / "bundle")
    assert bundle.encoder_decoder.sound is not None
    assert bundle.disk_bytes == found["measured"]["disk"] <= bound
    assert found["objective"] == "KL" and 0 < found["measured"]["KL"] <= 2 >= found["held_out"]["KL"] > 0
    assert 5e7 < found["measured"]["memory on here"] <= 2e9
    assert found["measured"]["decode on here"] >= 1 and found["measured"]["first token on here"] <= 20
    assert found["trials"][0]["predicted"]["disk"] == pytest.approx(
        found["trials"][0]["measured"]["disk"], rel=0.1
    )
    assert found["documents"] == {"calibration": 16, "development": 6, "held-out": 6, "repeated": 1}
    assert found["held_out_status"] == "apart"
    assert not check_tree(out, read_json(out / "fit.json")["files"], skip=frozenset({"fit.json"}))
    texts = [line.workload.get("text") for line in records.read([out / "runs.jsonl"])]
    assert texts == ["development", None, "held-out"]
    assert found["repeat"][5:7] == ["--audio", "calibration"]
    recipe, audio = str(out / "recipe.yaml"), out / "calibration"
    assert len(list(audio.glob("*.wav"))) == len(list(audio.glob("*.txt"))) == 16
    assert "samples: 5" not in Path(recipe).read_text()
    again = compress_model(str(model), recipe=recipe, calibration=str(audio), output=tmp_path / "again")
    made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
    differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
    assert hash_tree(bundle.path, skip=differ) == hash_tree(made.path, skip=differ)
    _held_out_apart(out, model, sounds, audio, found, tmp_path)


def _held_out_apart(
    out: Path, model: Path, sounds: Path, audio: Path, found: dict[str, Any], tmp_path: Path
) -> None:
    """The figure of the held-out part is that of sounds which nothing was calibrated with."""
    calibrated = set(map(sha256_file, audio.glob("*.wav")))
    others = tmp_path / "others"
    others.mkdir()
    lines = records.read([out / "runs.jsonl"])
    line = next(one for one in lines if one.workload.get("text") == "held-out")
    files = [file for file in sorted(sounds.glob("*.wav")) if sha256_file(file) not in calibrated]
    for number in (15, 16, 17, 33, 34, 35):  # a run of three is a twelfth
        file = sounds / f"{number:02d}.wav"
        assert file in files
        for one in (file, file.with_suffix(".txt")):
            shutil.copyfile(one, others / one.name)
    again = validate_bundle(out / "bundle", model, text=others, replies=False, threads=1)
    assert again.workload["sounds_sha256"] == line.workload["sounds_sha256"]
    assert again.metrics["kl"].value == found["held_out"]["KL"]


def test_the_smallest_that_keeps_a_kl(
    fit: Fit, pico_whisper: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    assert fit(pico_whisper, "--max-kl", "2") == 0
    found = found_by(capsys)
    assert (found["judged"], found["objective"]) == ("KL", "disk")
    assert 0 < found["measured"]["KL"] <= 2 >= found["held_out"]["KL"]


@pytest.mark.usefixtures("table")
def test_what_is_refused(
    fit: Fit, pico_whisper: Path, pico_text: Path, tmp_path: Path, capsys: Capture
) -> None:
    for budget in (["--min-cosine", "0.9"], ["--max-slice-kl", "people=0.1"], ["--min-sentences", "3"]):
        assert fit(pico_whisper, *budget) == 2
        assert "has no such figure" in capsys.readouterr().out
    assert fit(pico_whisper, "--max-kl", "2", "--samples", "60") == 2
    assert "--samples 24 would fit" in capsys.readouterr().out
    assert fit(pico_whisper, "--max-kl", "2", "--field", "words") == 2
    assert "sounds have no field" in capsys.readouterr().out
    words = ["fit", str(pico_whisper), "--text", str(pico_text), "--max-kl", "2", "--json"]
    assert run([*words, "-o", str(tmp_path / "o")]) == 2
    assert "pass --audio FOLDER" in capsys.readouterr().out


def test_the_size_of_a_bundle_counts_its_table_once(model: Path, tmp_path: Path) -> None:
    source = WeightSource.open(model)
    made = Bundle.open(export_bundle(model, output=tmp_path / "b", validate=False)).disk_bytes
    assert bundle_bytes(source, source.anatomy, {}, (None, None), 0) == pytest.approx(made, abs=80_000)
