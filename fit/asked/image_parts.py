"""Images in three parts, as :mod:`.texts` parts a text: a folder each, none with an image of another."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...disk import disk_full_is_typed, make_folder, require_disk
from ...errors import CalibrationError
from ...limits import require_seed
from ...runtime.images.image_file import image_files, open_image
from ...storage import sha256_file, sha256_json
from ...terminal import Progress
from .texts import DEVELOPMENT, HELD_OUT, RUNS, Texts

MEASURED = 256  # images of a part that is measured on, at most
LEAST = RUNS  # images: a run each

Files = Mapping[str, Path]  # by their SHA-256


def split_images(source: str, directory: Path, *, samples: int, seed: int, progress: Progress) -> Texts:
    """Copy ``samples`` images of the folder ``source``, drawn by ``seed``, to calibrate on, and at most
    :data:`MEASURED` each to search and to judge by, into folders of ``directory``. Neighbours by name, which
    may be alike, are mostly in the same part.

    Raises:
        CalibrationError: too few different images.
        InputError: no images, or one that cannot be read.
        OutOfResource: the disk has no room for the copies.
    """
    files = image_files(Path(source))
    found = {sha256_file(file): file for file in reversed(files)}  # of equal files the first counts
    distinct = dict(sorted(found.items(), key=lambda item: item[1]))
    parts = _parted(list(distinct), source, samples, seed)
    place = directory / f"images-{sha256_json(parts)[:16]}"
    if not place.is_dir():  # else an earlier run, or another process, has made it
        _copy(parts, distinct, place, progress)
    counts = {name: len(hashes) for name, hashes in parts.items()}
    folders = {name: place / name for name in parts}
    return Texts(
        str(folders["calibration"]),
        folders["development"],
        folders["held-out"],
        repeated=len(files) - len(distinct),
        documents=counts,
    )


def _parted(distinct: Sequence[str], source: str, samples: int, seed: int) -> dict[str, list[str]]:
    """The images of each part, in their order."""
    count = len(distinct)
    if count < LEAST:
        raise CalibrationError(
            f"{source} has {count} different images, {LEAST} are the least",
            why="some are calibrated on, others searched by, and no choice is made on the last",
            fix="give more images",
        )
    whole: dict[str, list[str]] = {"calibration": [], "development": [], "held-out": []}
    for place, image in enumerate(distinct):
        run = RUNS * place // count
        name = "development" if run in DEVELOPMENT else "held-out" if run in HELD_OUT else "calibration"
        whole[name].append(image)
    there = len(whole["calibration"])
    if there < samples:
        raise CalibrationError(
            f"{source} has {count} different images, {there} of them to calibrate on, and {samples} samples "
            "were asked for",
            fix=f"--samples {there} would fit; or give more images",
        )
    order = np.random.default_rng(require_seed(seed)).permutation(there)[:samples]
    drawn = {"calibration": [whole["calibration"][place] for place in sorted(order)]}
    return drawn | {name: _spread(whole[name]) for name in ("development", "held-out")}


def _spread(images: Sequence[str]) -> list[str]:
    most = min(MEASURED, len(images))
    return [images[place * len(images) // most] for place in range(most)]


def _copy(parts: Mapping[str, Sequence[str]], files: Files, place: Path, progress: Progress) -> None:
    """Make ``place``, whole; each image is opened before anything is measured on it."""
    chosen = [
        (name, number, files[image]) for name, part in parts.items() for number, image in enumerate(part)
    ]
    require_disk(place, sum(file.stat().st_size for *_, file in chosen))
    make_folder(place.parent)
    with (
        disk_full_is_typed(place),
        tempfile.TemporaryDirectory(dir=place.parent, prefix=".images-") as folder,
        progress.task("copying images", len(chosen)) as task,
    ):
        made = Path(folder) / place.name
        for name in parts:
            (made / name).mkdir(parents=True)
        for name, number, file in chosen:
            copy = made / name / f"{number:06d}{file.suffix.lower()}"
            shutil.copyfile(file, copy)
            open_image(copy)
            task.advance(1)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was first
                raise
