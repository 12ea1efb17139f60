"""``encode`` and ``classify`` with images, and ``compress`` with a folder of them, through the command line's
own entry.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgepress.cli.entry import run
from edgepress.export.api import export_bundle

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def embeds(make_vision: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a DINOv2."""
    root = tmp_path_factory.mktemp("embeds")
    return export_bundle(make_vision(root / "model", "dinov2"), output=root / "bundle", validate=False)


@pytest.fixture(scope="module")
def labels(make_vision: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a ViT that labels images."""
    root = tmp_path_factory.mktemp("labels")
    model = make_vision(root / "model", "vit", labels=["cat", "dog [x]"])
    return export_bundle(model, output=root / "bundle", validate=False)


def shown(images: list[Path]) -> list[str]:
    return [word for path in images for word in ("--image", str(path))]


def test_from_a_folder_of_images_to_their_vectors(
    make_vision: Callable[..., Path],
    pico_images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = str(make_vision(tmp_path / "model", "vit")), str(tmp_path / "out")
    folder = ["--images", str(pico_images[0].parent), "--samples", "8"]
    assert run(["compress", model, "--scheme", "W4A16", "--group-size", "16", *folder, "-o", out]) == 0
    assert "gptq" in capsys.readouterr().out
    assert run(["export", out, "-o", str(tmp_path / "bundle")]) == 0
    vectors = tmp_path / "vectors.npy"
    assert run(["encode", str(tmp_path / "bundle"), *shown(pico_images), "-o", str(vectors)]) == 0
    assert np.load(vectors).shape == (12, 64)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "encode . --image photo.jpg" in card and "image-feature-extraction" in card


def test_encode_shows_similarities_of_images(
    embeds: Path, pico_images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["encode", str(embeds), *shown([pico_images[0], pico_images[1], pico_images[0]])]
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"][1] == str(pico_images[1])
    assert document["similarity"][0][2] == pytest.approx(1) and document["similarity"][0][1] < 0.9999
    assert run(words) == 0
    assert "1.000" in capsys.readouterr().out


def test_classify_names_labels_of_images(
    labels: Path, pico_images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["classify", str(labels), *shown(pico_images[:2])]
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    first = document["images"][0]
    assert first["image"] == str(pico_images[0]) and first["label"] in ("cat", "dog [x]")
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert run(words) == 0
    assert first["label"] in capsys.readouterr().out


def test_each_verb_names_the_one_that_serves(
    embeds: Path,
    labels: Path,
    pico_bert: Path,
    pico_images: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = shown(pico_images[:1])
    text = export_bundle(pico_bert, output=tmp_path / "text", validate=False)
    for words, said in (
        (["encode", str(labels), *image], "edgepress classify BUNDLE --image FILE"),
        (["classify", str(embeds), *image], "edgepress encode BUNDLE --image FILE"),
        (["encode", str(embeds), "a text"], "edgepress encode BUNDLE --image FILE"),
        (["tag", str(labels), "a text"], "edgepress classify BUNDLE --image FILE"),
        (["encode", str(text), *image], "edgepress encode BUNDLE TEXT"),
        (["encode", str(embeds), "a text", *image], "texts are given beside images"),
        (["encode", str(embeds), "--image", str(tmp_path / "absent.png")], "cannot read"),
        (["encode", str(embeds)], "images with --image"),
        (["generate", str(embeds), "--prompt", "x"], "edgepress encode BUNDLE --image FILE"),
    ):
        assert run(words) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_fit_says_that_a_model_reads_images(
    embeds: Path, pico_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(embeds.parent / "model")
    budget = ["--max-disk", "1MB", "--text", str(pico_text), "-o", str(tmp_path / "o")]
    assert run(["fit", model, *budget]) == 2
    assert "reads images" in " ".join(capsys.readouterr().err.split())
