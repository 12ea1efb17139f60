"""So many of a folder's files, drawn by seed: equal ones count once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import CalibrationError, InputError
from ...files.limits import require_seed
from ...files.storage import sha256_file, sha256_json
from .calibration import Calibration
from .token_batch import TokenBatch, hash_of


@dataclass(frozen=True)
class DrawnFiles:
    """The files of the directory ``source`` that are ``chosen`` by ``seed``, in order; how many ``distinct``
    ones and ``duplicates`` there are, and the ``sha256`` of the hashes of all.
    """

    source: str
    seed: int
    chosen: list[Path]
    distinct: int
    duplicates: int
    sha256: str

    def calibration(self, batches: Iterable[TokenBatch], *, tokens: int, truncated: int = 0) -> Calibration:
        """With the ``batches`` that were made of the chosen files, each of which became so many tokens."""
        made = tuple(batches)
        return Calibration(
            batches=made,
            source=self.source,
            seed=self.seed,
            samples=len(self.chosen),
            length=tokens,
            effective_tokens=len(self.chosen) * tokens,
            documents=self.distinct,
            duplicates=self.duplicates,
            truncated=truncated,
            chat=False,
            sha256=hash_of(made),
            text_sha256=self.sha256,
        )


def draw_files(files: Sequence[Path], what: str, source: str, *, samples: int, seed: int) -> DrawnFiles:
    """Draw ``samples`` of ``files``, which are the ``what`` (images, sounds) of the directory ``source``."""
    first = distinct_files(files)
    distinct = sorted(first.values())
    if len(distinct) < samples:
        raise CalibrationError(
            f"{source} has {len(distinct)} distinct {what}, {samples} samples were asked for",
            fix=f"--samples {len(distinct)} would fit; or give more {what}",
        )
    order = np.random.default_rng(require_seed(seed)).permutation(len(distinct))[:samples]
    chosen = [distinct[index] for index in order]
    duplicates, content = len(files) - len(distinct), sha256_json(sorted(first))
    return DrawnFiles(source, seed, chosen, len(distinct), duplicates, content)


def distinct_files(files: Sequence[Path]) -> dict[str, Path]:
    """``files`` by their SHA-256: of equal ones the first counts."""
    return {sha256_file(file): file for file in reversed(files)}


def require_sizes(samples: int, batch_size: int) -> None:
    """Refuse numbers of samples that are not positive."""
    if min(samples, batch_size) < 1:
        raise InputError(f"calibration needs samples and batch size ≥ 1, not {samples} and {batch_size}")
