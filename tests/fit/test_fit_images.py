"""``fit`` on encoders of images: budgets of cosine, KL and bytes hold on images that decided nothing."""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records import record as records
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.compress.bundle_size import bundle_bytes
from edgepress.compress.model.weights import WeightSource
from edgepress.export.api import export_bundle
from edgepress.files.hashed_tree import check_tree, hash_tree
from edgepress.files.storage import read_json
from edgepress.fit import search as search_module
from edgepress.runtime.bundle.bundle import Bundle

from ..conftest import save_images

pytestmark = pytest.mark.chain

Capture = pytest.CaptureFixture[str]
Fit = Callable[..., int]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images."""
    folder = tmp_path_factory.mktemp("shown")
    save_images(folder, 36)
    return folder


@pytest.fixture
def fit(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """``edgepress fit`` of a model on ``images``, rounded alone, into ``tmp_path / "o"``."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])

    def call(model: Path | str, *arguments: str) -> int:
        given = ["--images", str(images), "--samples", "16", "--threads", "1", "--json"]
        return run(["fit", str(model), *given, "-o", str(tmp_path / "o"), *arguments])

    return call


def found_by(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("dinov2", "clip")]


@pytest.mark.parametrize("kind", ["vit", *OTHERS])
def test_an_encoder_of_images(
    kind: str,
    fit: Fit,
    make_vision: Callable[..., Path],
    make_pair: Callable[..., Path],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    pair = kind == "clip"
    model = f"{make_pair(tmp_path / 'm', kind)}:image" if pair else str(make_vision(tmp_path / "m", kind))
    assert fit(model, "--max-disk", "1GB", "--dry-run") == 0
    planned = found_by(capsys)
    assert planned["judged"] == "cosine" and planned["compress_seconds"]["awq, gptq"] > 0
    bound = round(1.1 * planned["smallest"])
    assert fit(model, "--max-disk", f"{bound}B", "--max-memory", "2GB", "--min-cosine", "0.5") == 0
    found, out = found_by(capsys), tmp_path / "o"
    assert Bundle.open(out / "bundle").disk_bytes == found["measured"]["disk"] <= bound
    assert found["objective"] == "cosine" and 0.5 <= found["held_out"]["cosine"] < 1
    assert found["held_out_status"] == "apart" and 5e7 < found["measured"]["memory on here"] < 2e9
    assert found["documents"] == {"calibration": 16, "development": 6, "held-out": 6, "repeated": 0}
    assert not check_tree(out, read_json(out / "fit.json")["files"], skip=frozenset({"fit.json"}))
    texts = [line.workload.get("text") for line in records.read([out / "runs.jsonl"])]
    assert texts == ["development", None, "held-out"]
    assert found["repeat"][5:7] == ["--images", "calibration"]
    if kind == "vit":
        again = compress_model(
            model,
            recipe=str(out / "recipe.yaml"),
            calibration=str(out / "calibration"),
            output=tmp_path / "again",
        )
        made = Bundle.open(export_bundle(again, output=tmp_path / "b"))
        differ = frozenset({"manifest.json", "README.md", "bom.cdx.json"})  # they name the run
        assert hash_tree(out / "bundle", skip=differ) == hash_tree(made.path, skip=differ)


def test_the_smallest_classifier_of_images_within_a_kl(
    fit: Fit, make_vision: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    model = make_vision(tmp_path / "m", "vit", labels=["cat", "dog", "boat"])
    assert fit(model, "--max-disk", "1GB", "--dry-run") == 0
    bound = round(1.01 * found_by(capsys)["smallest"])
    assert fit(model, "--max-disk", f"{bound}B") == 0
    smallest = found_by(capsys)
    # What the smallest loses on this processor: a budget that one version keeps for certain, on both texts.
    most = max(smallest[where]["KL"] for where in ("measured", "held_out"))
    assert fit(model, "--max-kl", f"{most}", "--overwrite") == 0
    found = found_by(capsys)
    assert (found["judged"], found["objective"]) == ("KL", "disk")
    assert found["measured"]["disk"] <= smallest["measured"]["disk"] <= bound
    assert 0 <= max(found[where]["KL"] for where in ("measured", "held_out")) <= most
    least = found["measured"]["KL"] / 4
    if fit(model, "--max-kl", f"{least}", "--overwrite") == 0:  # what is held out may refuse it
        finer = found_by(capsys)
        assert finer["measured"]["KL"] <= least and finer["measured"]["disk"] > found["measured"]["disk"]
    for budget in (["--min-cosine", "0.9"], ["--min-accuracy", "0.9"], ["--max-energy", "1J@raspberry-pi-5"]):
        assert fit(model, *budget, "--overwrite") == 2
        printed = capsys.readouterr().out
        assert "kernel table" in printed or "its budgets are --max-disk, --max-memory, --max-kl" in printed


def test_what_is_refused(
    fit: Fit,
    make_vision: Callable[..., Path],
    pico_text: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    model = make_vision(tmp_path / "m", "dinov2")
    text = ["fit", str(model), "--text", str(pico_text.parent), "--min-cosine", "0.9", "--json"]
    assert run([*text, "-o", str(tmp_path / "o")]) == 2
    assert "holds no images" in capsys.readouterr().out
    assert fit(model, "--min-cosine", "0.9", "--samples", "60") == 2
    assert "--samples 24 would fit" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["vit", "dinov2"])
def test_the_size_of_a_bundle_counts_what_makes_states_of_squares(
    kind: str, make_vision: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_vision(tmp_path / "m", kind)
    source = WeightSource.open(model)
    made = Bundle.open(export_bundle(model, output=tmp_path / "b", validate=False)).disk_bytes
    wide = WeightSource.open(make_vision(tmp_path / "w", kind, hidden_size=512))
    assert bundle_bytes(source, source.anatomy, {}, (None, None), 0) == pytest.approx(made, abs=80_000)
    for one in (source, wide):
        weights = sum(map(prod, one.shapes.values()))
        assert bundle_bytes(one, one.anatomy, {}, (None, None), 0) >= 4 * weights
