"""Models of images under validation: against themselves, rounded, as bundles, and what cannot be compared."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.quality.measured_images import shown_images
from edgepress.benchmarks.quality.validate import plan_validation, validate_bundle
from edgepress.cli.entry import run
from edgepress.compress.api import compress_model
from edgepress.errors import InputError
from edgepress.export.api import export_bundle
from edgepress.runtime.api import open_bundle
from edgepress.runtime.engine.image_encoder import ImageModel

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def embeds(make_vision: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a DINOv2 and what 3 bits leave of it, as a checkpoint and as a bundle."""
    root = tmp_path_factory.mktemp("embeds")
    model = make_vision(root / "model", "dinov2")
    compress_model(str(model), scheme="W3A16", group_size=16, output=root / "out")
    export_bundle(root / "out", output=root / "bundle", validate=False)
    return root


def test_embeddings_are_compared_by_cosine_and_neighbours(
    embeds: Path, pico_images: list[Path], tmp_path: Path
) -> None:
    folder, record = pico_images[0].parent, tmp_path / "runs.jsonl"
    line = validate_bundle(embeds / "bundle", embeds / "model", text=folder, record=record)
    bundle = open_bundle(embeds / "bundle", threads=1)
    assert isinstance(bundle, ImageModel)
    plain = open_bundle(export_bundle(embeds / "model", output=tmp_path / "b", validate=False), threads=1)
    assert isinstance(plain, ImageModel)
    mine, theirs = (model.encode(pico_images).astype(np.float64) for model in (bundle, plain))
    cosine = (mine * theirs).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)
    assert line.metrics["cosine"].value == pytest.approx(cosine.mean(), abs=1e-5)
    assert 0 <= line.metrics["neighbour_overlap"].value <= 1
    assert line.workload["images"] == 12 and line.workload["kind"] == "quality"
    assert len(record.read_text().splitlines()) == 2
    checkpoint = validate_bundle(embeds / "out", embeds / "model", text=folder)
    assert checkpoint.metrics["cosine"].value == pytest.approx(line.metrics["cosine"].value, abs=2e-3)
    same = validate_bundle(embeds / "model", embeds / "model", text=folder, sentences=5)
    assert same.metrics["cosine"].value == pytest.approx(1, abs=1e-6) and same.workload["images"] == 5


@pytest.mark.parametrize("several", [False, True])
def test_labels_are_compared_by_agreement(
    several: bool, make_vision: Callable[..., Path], pico_images: list[Path], tmp_path: Path
) -> None:
    kind = {"problem_type": "multi_label_classification"} if several else {}
    model = make_vision(tmp_path / "model", "vit", labels=["cat", "dog", "boat"], **kind)
    compress_model(str(model), scheme="W8A8", output=tmp_path / "out")
    bundle = export_bundle(tmp_path / "out", output=tmp_path / "bundle")
    line = validate_bundle(bundle, model, text=pico_images[0].parent)
    assert line.metrics["label_agreement"].value > 0.8 and line.metrics["label_kl"].value < 0.01
    assert line.metrics["label_kl"].n == 12


def test_the_verb_compares_and_gates(
    embeds: Path, pico_images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", str(embeds / "bundle"), "--against", str(embeds / "model")]
    shown = ["--images", str(pico_images[0].parent), "--record", str(tmp_path / "r.jsonl")]
    assert run([*words, *shown, "--min-cosine", "0.2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["gates"][0]["passed"] and "--images" not in document["command"]
    assert run([*words, *shown, "--min-cosine", "0.9999999"]) == 1
    assert "12 images of" in " ".join(capsys.readouterr().out.split())
    assert run([*words, *shown, "--dry-run"]) == 0
    capsys.readouterr()
    assert run(words) == 2
    assert "pass --images FOLDER" in capsys.readouterr().err


def test_what_cannot_be_compared_is_said(
    embeds: Path,
    make_vision: Callable[..., Path],
    pico_bert: Path,
    pico_images: list[Path],
    pico_text: Path,
    tmp_path: Path,
) -> None:
    folder, model = pico_images[0].parent, embeds / "model"
    labelled = make_vision(tmp_path / "labelled", "vit", labels=["cat", "dog"])
    for measure in (plan_validation, validate_bundle):
        with pytest.raises(InputError, match="with the labels cat, dog is compared with one with none"):
            measure(labelled, model, text=folder)
        with pytest.raises(InputError, match="reads no images"):
            measure(pico_bert, model, text=folder)
        with pytest.raises(InputError, match="reads images and reads no text"):
            measure(embeds / "bundle", pico_bert, text=pico_text)
        with pytest.raises(InputError, match="slices are of text"):
            measure(embeds / "bundle", model, text=folder, slices=["languages"])
    with pytest.raises(InputError, match="holds no images"):
        validate_bundle(embeds / "bundle", model, text=pico_text.parent)
    with pytest.raises(InputError, match="1 distinct images"):
        shown_images(pico_images[0], 8, "spread")
    assert plan_validation(embeds / "bundle", model, text=folder).memory > 0


@pytest.mark.usefixtures("few_word_pairs")
def test_texts_of_one_of_two_encoders_are_compared_as_sentences(
    make_tower: Callable[..., Path], pico_text: Path, tmp_path: Path
) -> None:
    for architecture in ("CLIPTextModelWithProjection", "SiglipTextModel"):
        model = make_tower(tmp_path / architecture, architecture)
        bundle = export_bundle(model, output=tmp_path / f"{architecture}-bundle")
        line = validate_bundle(bundle, model, text=pico_text, sentences=8)
        assert line.metrics["cosine"].value == pytest.approx(1, abs=1e-5)
