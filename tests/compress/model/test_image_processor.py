"""Files of image processors, old and new, and what they may not say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.image_processor import preprocessing_of, require_preprocessing
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CheckpointError
from edgepress.files.storage import write_json
from edgepress.runtime.bundle.preprocessing import Preprocessing

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "ViTFeatureExtractor", "size": 224},
            Preprocessing(resize=[224, 224], mean=[0.5] * 3, std=[0.5] * 3),
        ),
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3},
            Preprocessing(shorter=224, crop=[224, 224], resample="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
        ),
        (
            "processor_config.json",
            {
                "processor_class": "SiglipProcessor",
                "image_processor": {
                    "image_processor_type": "SiglipImageProcessor",
                    "size": {"height": 64, "width": 48},
                    "do_normalize": False,
                },
            },
            Preprocessing(resize=[64, 48], resample="bicubic"),
        ),
    ],
)
def test_what_a_file_leaves_out_is_its_class_s(
    file: str, content: dict[str, Any], expected: Preprocessing, tmp_path: Path
) -> None:
    write_json(tmp_path / file, content)
    assert preprocessing_of(tmp_path) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"size": {"longest_edge": 30}},
        {"size": 0},
        {"size": 1 << 20},
        {"size": "large"},
        {"resample": 9},
        {"resample": True},
        {"image_mean": [0.5]},
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": None},
        {"rescale_factor": "1/255"},
        {"image_processor_type": "DetrImageProcessor"},
        {"size": {"shortest_edge": 32}},
    ],
)
def test_settings_that_no_image_has_are_refused(
    changes: dict[str, Any], make_vision: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_vision(tmp_path, "vit", processor=changes)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        WeightSource.open(model)


def test_no_file_is_no_guess(tmp_path: Path) -> None:
    assert preprocessing_of(tmp_path) is None
    with pytest.raises(CheckpointError, match="does not say how its images are prepared"):
        require_preprocessing(tmp_path)


def test_dinov2_takes_images_of_another_size_and_vit_does_not(
    make_vision: Callable[..., Path], tmp_path: Path
) -> None:
    smaller = {"size": {"height": 24, "width": 16}}
    with pytest.raises(CheckpointError, match="prepared to 24 × 16 pixels, and the model reads 32 × 32"):
        WeightSource.open(make_vision(tmp_path / "vit", "vit", processor=smaller))
    cropped = {"crop_size": smaller["size"]}
    anatomy = WeightSource.open(make_vision(tmp_path / "dinov2", "dinov2", processor=cropped)).anatomy
    assert anatomy.patches is not None and anatomy.patches.image == (24, 16)
    assert anatomy.max_positions == 1 + 3 * 2
    with pytest.raises(CheckpointError, match="prepared to 20 × 24"):  # no whole squares
        odd = {"crop_size": {"height": 20, "width": 24}}
        WeightSource.open(make_vision(tmp_path / "odd", "dinov2", processor=odd))
