"""Preprocessing against transformers' own processors: the same numbers, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepress.compress.model.image_processor import preprocessing_of
from edgepress.errors import InputError
from edgepress.files.storage import write_json
from edgepress.runtime.bundle.preprocessing import Preprocessing
from edgepress.runtime.images.prepared import prepared, read_images

Image = pytest.importorskip("PIL.Image")
BOTH = {"height": 24, "width": 40}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit.image_processing_pil_vit.ViTImageProcessorPil", {"size": BOTH}),
    "vit, lanczos": ("vit.image_processing_pil_vit.ViTImageProcessorPil", {"size": BOTH, "resample": 1}),
    "vit, not normalized": ("vit.image_processing_pil_vit.ViTImageProcessorPil", {"do_normalize": False}),
    "vit, not rescaled": ("vit.image_processing_pil_vit.ViTImageProcessorPil", {"do_rescale": False}),
    "siglip": ("siglip.image_processing_pil_siglip.SiglipImageProcessorPil", {"size": BOTH}),
    "clip": ("clip.image_processing_pil_clip.CLIPImageProcessorPil", {}),
    "clip, a crop beyond the image": (
        "clip.image_processing_pil_clip.CLIPImageProcessorPil",
        {"size": {"shortest_edge": 31}, "crop_size": {"height": 45, "width": 38}},
    ),
    "clip, an odd crop": (
        "clip.image_processing_pil_clip.CLIPImageProcessorPil",
        {"size": {"shortest_edge": 30}, "crop_size": {"height": 25, "width": 28}},
    ),
    "dinov2": (
        "bit.image_processing_pil_bit.BitImageProcessorPil",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    ),
    "dinov2, cropped alone": (
        "bit.image_processing_pil_bit.BitImageProcessorPil",
        {"do_resize": False, "crop_size": {"height": 64, "width": 48}},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_transformers(name: str, pico_images: list[Path], tmp_path: Path) -> None:
    from importlib import import_module

    module, _, kind = CASES[name][0].rpartition(".")
    processor = getattr(import_module(f"transformers.models.{module}"), kind)(**CASES[name][1])
    processor.save_pretrained(tmp_path)
    how = preprocessing_of(tmp_path)
    assert how is not None
    images = [Image.open(path) for path in pico_images]
    want = processor(images, return_tensors="np")["pixel_values"]
    assert np.array_equal(read_images(pico_images, how), want)
    assert how.size == want.shape[2:]


def test_a_strip_is_refused_before_its_longer_side_grows() -> None:
    how = Preprocessing(shorter=224, crop=[224, 224])
    with pytest.raises(InputError, match="too narrow"):
        prepared(Image.new("RGB", (1, 50_000)), how, "strip.png")
    assert prepared(Image.new("RGB", (10, 320)), how, "long.png").shape == (3, 224, 224)


def test_sizes_that_would_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different sizes"):
        Preprocessing(shorter=224)
    write_json(tmp_path / "preprocessor_config.json", {})
    with pytest.raises(InputError, match="not known here"):
        preprocessing_of(tmp_path)
