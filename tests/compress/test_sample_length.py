"""How many tokens a sample has: at most all places, and all where a model reads them whatever it is given."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.sample_length import sample_length, text_inputs


@pytest.mark.parametrize(("asked", "found"), [(8, 8), (100_000, None)])
def test_of_text_what_is_asked_for(asked: int, found: int | None, pico_llama: Path) -> None:
    anatomy = WeightSource.open(pico_llama).anatomy
    assert sample_length(anatomy, asked) == (found or anatomy.max_positions)


def test_of_sounds_and_images_all_places(
    pico_whisper: Path, make_vision: Callable[..., Path], make_pair: Callable[..., Path], tmp_path: Path
) -> None:
    whisper = WeightSource.open(pico_whisper).anatomy
    assert sample_length(whisper, 8) == sample_length(whisper, 512) == 100
    seen = WeightSource.open(make_vision(tmp_path / "vit", "vit")).anatomy
    assert seen.patches is not None
    assert sample_length(seen, 8) == sample_length(seen, 512) == seen.patches.tokens


@pytest.mark.parametrize(("several", "labels"), [(False, ("a", "b")), (True, ())])
def test_labels_of_rows_are_those_of_a_classifier_of_one_a_text(
    several: bool, labels: tuple[str, ...], make_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    form = {"problem_type": "multi_label_classification"} if several else {}
    anatomy = WeightSource.open(make_encoder(tmp_path / "model", labels=["a", "b"], **form)).anatomy
    found = text_inputs(anatomy)
    assert tuple(found["labels"]) == labels and found["kind"] == "encoder" and found["filled"] is None
