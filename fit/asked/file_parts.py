"""Images or sounds in three parts, as :mod:`.texts` parts a text: a folder each, no file in two of them."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import CalibrationError
from ...files.disk import disk_full_is_typed, make_folder, require_disk
from ...files.limits import require_seed
from ...files.storage import sha256_file, sha256_json
from ...terminal.progress import Progress
from .texts import DEVELOPMENT, HELD_OUT, RUNS, Texts

MEASURED = 256  # files of a part that is measured on, at most
LEAST = RUNS  # files: a run each

Files = Mapping[str, Path]  # by their SHA-256


@dataclass(frozen=True)
class FileKind:
    """What a model is given.

    Attributes:
        name: of it: ``images``.
        find: those in a folder; raises InputError where there are none.
        read: one, so that it is refused before anything is measured; raises what says why it cannot be.
        beside: the files that belong to one, which are copied with it; raises where one is not there.
    """

    name: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    beside: Callable[[Path], Sequence[Path]] = lambda _: ()


def split_files(
    source: str, kind: FileKind, directory: Path, *, samples: int, seed: int, progress: Progress
) -> Texts:
    """Copy ``samples`` files of the ``kind`` in the folder ``source``, drawn by ``seed``, to calibrate on,
    and at most :data:`MEASURED` each to search and to judge by, into folders of ``directory``. Neighbours by
    name, which may be alike, are mostly in the same part.
    """
    files = kind.find(Path(source))
    found = {sha256_file(file): file for file in reversed(files)}  # of equal files the first counts
    distinct = dict(sorted(found.items(), key=lambda item: item[1]))
    parts = _parted(list(distinct), kind.name, source, samples, seed)
    chosen = {name: [distinct[content] for content in part] for name, part in parts.items()}
    belongs = [[sha256_file(file) for file in kind.beside(one)] for part in chosen.values() for one in part]
    place = directory / f"{kind.name}-{sha256_json([parts, belongs])[:16]}"
    if not place.is_dir():  # else an earlier run, or another process, has made it
        _copy(chosen, kind, place, progress)
    folders = {name: place / name for name in parts}
    return Texts(
        str(folders["calibration"]),
        folders["development"],
        folders["held-out"],
        repeated=len(files) - len(distinct),
        documents={name: len(part) for name, part in parts.items()},
    )


def _parted(distinct: Sequence[str], what: str, source: str, samples: int, seed: int) -> dict[str, list[str]]:
    """The files of each part, in their order."""
    count = len(distinct)
    if count < LEAST:
        raise CalibrationError(
            f"{source} has {count} different {what}, {LEAST} are the least",
            why="some are calibrated on, others searched by, and no choice is made on the last",
            fix=f"give more {what}",
        )
    whole: dict[str, list[str]] = {"calibration": [], "development": [], "held-out": []}
    for place, file in enumerate(distinct):
        run = RUNS * place // count
        name = "development" if run in DEVELOPMENT else "held-out" if run in HELD_OUT else "calibration"
        whole[name].append(file)
    there = len(whole["calibration"])
    if there < samples:
        raise CalibrationError(
            f"{source} has {count} different {what}, {there} of them to calibrate on, and {samples} samples "
            "were asked for",
            fix=f"--samples {there} would fit; or give more {what}",
        )
    order = np.random.default_rng(require_seed(seed)).permutation(there)[:samples]
    drawn = {"calibration": [whole["calibration"][place] for place in sorted(order)]}
    return drawn | {name: _spread(whole[name]) for name in ("development", "held-out")}


def _spread(files: Sequence[str]) -> list[str]:
    most = min(MEASURED, len(files))
    return [files[place * len(files) // most] for place in range(most)]


def _copy(chosen: Mapping[str, Sequence[Path]], kind: FileKind, place: Path, progress: Progress) -> None:
    """Make ``place``, whole; each file is read before anything is measured on it."""
    files = [(name, number, file) for name, part in chosen.items() for number, file in enumerate(part)]
    whole = [one for *_, file in files for one in (file, *kind.beside(file))]
    require_disk(place, sum(one.stat().st_size for one in whole))
    make_folder(place.parent)
    with (
        disk_full_is_typed(place),
        tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{kind.name}-") as folder,
        progress.task(f"copying {kind.name}", len(files)) as task,
    ):
        made = Path(folder) / place.name
        for name in chosen:
            (made / name).mkdir(parents=True)
        for name, number, file in files:
            kind.read(file)
            for one in (file, *kind.beside(file)):
                shutil.copyfile(one, made / name / f"{number:06d}{one.suffix.lower()}")
            task.advance(1)
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():  # else another process was first
                raise
