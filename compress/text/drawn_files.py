"""So many of a folder's files, drawn by seed: equal ones count once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import CalibrationError, InputError
from ...limits import require_seed
from ...storage import sha256_file, sha256_json


@dataclass(frozen=True)
class DrawnFiles:
    """The ``chosen`` files in order; how many ``distinct`` ones and ``duplicates`` there are, and the
    ``sha256`` of the hashes of all.
    """

    chosen: list[Path]
    distinct: int
    duplicates: int
    sha256: str


def draw_files(files: Sequence[Path], what: str, source: str, *, samples: int, seed: int) -> DrawnFiles:
    """Draw ``samples`` of ``files``, which are the ``what`` (images, sounds) of the directory ``source``.

    Raises:
        CalibrationError: there are fewer distinct files.
        InputError: a seed outside its range.
    """
    first = {sha256_file(file): file for file in reversed(files)}  # of equal files the first counts
    distinct = sorted(first.values())
    if len(distinct) < samples:
        raise CalibrationError(
            f"{source} has {len(distinct)} distinct {what}, {samples} samples were asked for",
            fix=f"--samples {len(distinct)} would fit; or give more {what}",
        )
    order = np.random.default_rng(require_seed(seed)).permutation(len(distinct))[:samples]
    chosen = [distinct[index] for index in order]
    return DrawnFiles(chosen, len(distinct), len(files) - len(distinct), sha256_json(sorted(first)))


def require_sizes(samples: int, batch_size: int) -> None:
    """Refuse numbers of samples that are not positive.

    Raises:
        InputError: one of them is not.
    """
    if min(samples, batch_size) < 1:
        raise InputError(f"calibration needs samples and batch size ≥ 1, not {samples} and {batch_size}")
