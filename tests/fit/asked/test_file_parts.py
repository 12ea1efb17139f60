"""Images and sounds in three parts: each in one, whatever it is called; too few, what cannot be read, and
a sound without its words, are refused.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.errors import CalibrationError, InputError
from edgepress.files.storage import sha256_file
from edgepress.fit.asked import file_parts
from edgepress.fit.asked.file_parts import FileKind, split_files
from edgepress.fit.asked.given import files_of
from edgepress.fit.asked.texts import Texts
from edgepress.runtime.images.image_file import image_files, open_image
from edgepress.terminal.progress import Silent

from ...conftest import save_images, save_sounds

Split = Callable[..., Texts]
IMAGES = FileKind("images", image_files, open_image)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    def call(folder: Path, samples: int = 8, seed: int = 0, kind: FileKind = IMAGES) -> Texts:
        work = tmp_path / "work"
        return split_files(str(folder), kind, work, samples=samples, seed=seed, progress=Silent())

    return call


def parts(texts: Texts) -> list[list[str]]:
    folders = (Path(texts.calibration), texts.development, texts.held_out)
    return [[sha256_file(file) for file in sorted(folder.iterdir())] for folder in folders]


@pytest.mark.parametrize("count", [12, 13, 30, 47])
def test_each_image_is_in_one_part(split: Split, tmp_path: Path, count: int) -> None:
    files = save_images(tmp_path / "images", count)
    found = parts(split(tmp_path / "images"))
    images = [image for part in found for image in part]
    assert len(images) == len(set(images)) and set(images) <= set(map(sha256_file, files))
    assert len(found[0]) == 8 and min(map(len, found[1:])) >= count // 6 - 1
    places = [[sha256_file(file) for file in files].index(image) for image in found[1]]
    assert places == sorted(places)


def test_equal_images_count_once(split: Split, tmp_path: Path) -> None:
    files = save_images(tmp_path / "images", 15)
    (tmp_path / "images" / "more").mkdir()
    for file in files:
        shutil.copyfile(file, tmp_path / "images" / "more" / file.name)
    texts = split(tmp_path / "images")
    assert texts.repeated == 15 and sum(map(len, parts(texts))) <= 15
    assert len({image for part in parts(texts) for image in part}) == sum(map(len, parts(texts)))
    assert list(texts.documents.values()) == list(map(len, parts(texts)))


def test_the_same_images_are_copied_once(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path / "images", 12)
    first = split(tmp_path / "images")
    monkeypatch.setattr(file_parts, "_copy", lambda *_: pytest.fail("copied again"))
    assert split(tmp_path / "images") == first and split(tmp_path / "images").hashes == first.hashes
    monkeypatch.undo()
    other = split(tmp_path / "images", samples=7)
    assert other.calibration != first.calibration and other.hashes[:2] == first.hashes[:2] != other.hashes[1:]
    assert not list((tmp_path / "work").glob(".*"))


def test_a_part_that_is_measured_on_is_bounded(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_parts, "MEASURED", 3)
    save_images(tmp_path / "images", 40)
    assert [len(part) for part in parts(split(tmp_path / "images"))] == [8, 3, 3]


def test_too_few_images(split: Split, tmp_path: Path) -> None:
    save_images(tmp_path / "images", 11)
    with pytest.raises(CalibrationError, match="11 different images, 12 are the least"):
        split(tmp_path / "images")
    save_images(tmp_path / "images", 12)
    with pytest.raises(
        CalibrationError, match="12 different images, 8 of them to calibrate on, and 9"
    ) as error:
        split(tmp_path / "images", samples=9)
    assert "--samples 8 would fit" in error.value.fix


def test_what_is_no_image_is_refused_before_anything_is_measured(split: Split, tmp_path: Path) -> None:
    files = save_images(tmp_path / "images", 12)
    for file in files:
        file.write_bytes(b"no image" + file.name.encode())
    with pytest.raises(InputError):
        split(tmp_path / "images")
    assert not list((tmp_path / "work").iterdir())


@pytest.fixture
def sounds(pico_whisper: Path) -> FileKind:
    return files_of(WeightSource.open(pico_whisper))


def test_what_is_said_in_a_sound_goes_with_it(split: Split, sounds: FileKind, tmp_path: Path) -> None:
    folder = save_sounds(tmp_path / "sounds", 14)
    texts = split(folder, kind=sounds)
    said = {sha256_file(file): file.with_suffix(".txt").read_text() for file in folder.glob("*.wav")}
    for part in (Path(texts.calibration), texts.development, texts.held_out):
        copies = sorted(part.glob("*.wav"))
        assert copies and len(list(part.iterdir())) == 2 * len(copies)
        assert all(one.with_suffix(".txt").read_text() == said[sha256_file(one)] for one in copies)
    assert texts.documents == {"calibration": 8, "development": 2, "held-out": 2}
    assert split(folder, kind=sounds) == texts
    (folder / "00.txt").write_text("other words")
    assert split(folder, samples=9, kind=sounds).hashes != texts.hashes
    again = split(folder, samples=9, kind=sounds)
    (folder / "00.txt").write_text("words that are none of these")
    assert split(folder, samples=9, kind=sounds).calibration != again.calibration


def test_sounds_that_cannot_be_used_are_refused(split: Split, sounds: FileKind, tmp_path: Path) -> None:
    folder = save_sounds(tmp_path / "sounds", 12)
    (folder / "03.txt").unlink()
    with pytest.raises(CalibrationError, match=r"what is said in .*03\.wav is not known"):
        split(folder, kind=sounds)
    save_sounds(folder, 12, seconds=2.5)
    with pytest.raises(InputError, match="seconds long, and the model reads 2"):
        split(folder, kind=sounds)
    assert not list((tmp_path / "work").iterdir())
