"""So many of a folder's files, drawn by seed: equal ones count once.

Calibration with images: so many of a folder's, drawn by seed, as the model's processor prepares them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import CalibrationError, InputError
from ...files.limits import require_seed
from ...files.storage import sha256_file, sha256_json
from ...runtime.bundle.preprocessing import Preprocessing
from ...runtime.images.image_file import image_files
from ...runtime.images.prepared import read_images
from .calibration import Calibration
from .token_batch import TokenBatch, hash_of

PROBES = 8
_PROBE_SEED = 20_251
_WAVES = 12


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


def calibration_of_images(
    source: str, how: Preprocessing, *, tokens: int, samples: int, seed: int = 0, batch_size: int
) -> Calibration:
    """Read ``samples`` of the images in the directory ``source``, of which each becomes so many
    ``tokens``.
    """
    require_sizes(samples, batch_size)
    drawn = draw_files(image_files(Path(source)), "images", source, samples=samples, seed=seed)
    return drawn.calibration(_batches(drawn.chosen, how, tokens, batch_size), tokens=tokens)


def _batches(files: Sequence[Path], how: Preprocessing, tokens: int, batch_size: int) -> Iterator[TokenBatch]:
    for start in range(0, len(files), batch_size):
        pixels = torch.from_numpy(read_images(files[start : start + batch_size], how))
        yield TokenBatch(pixels, torch.ones(len(pixels), tokens, dtype=torch.int64))


def probe_images(height: int, width: int, tokens: int) -> list[TokenBatch]:
    """Images that steps and graphs are measured on, which nobody calibrates with: waves of several lengths
    under a few flat patches, in the range of normalized pixels. A batch of one each.
    """
    generator = np.random.default_rng(_PROBE_SEED)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    found = []
    for _ in range(PROBES):
        image = np.zeros((3, height, width))
        for _ in range(_WAVES):
            across, down = generator.normal(0, 8, 2)
            wave = np.sin(2 * np.pi * (across * columns + down * rows + generator.random()))
            image += generator.normal(0, 0.5, (3, 1, 1)) * wave
        for _ in range(2):
            top, left = (int(side * generator.random()) for side in (height, width))
            part = (slice(None), slice(top, top + height // 3), slice(left, left + width // 3))
            image[part] = generator.normal(0, 1, (3, 1, 1))
        pixels = torch.from_numpy(np.clip(image, -2.5, 2.5).astype(np.float32))[None]
        found.append(TokenBatch(pixels, torch.ones(1, tokens, dtype=torch.int64)))
    return found
