"""Calibration with images: so many of a folder's, drawn by seed, as the model's processor prepares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...runtime.bundle.preprocessing import Preprocessing
from ...runtime.images.image_file import image_files
from ...runtime.images.prepared import read_images
from .calibration import Calibration
from .drawn_files import draw_files, require_sizes
from .token_batch import TokenBatch

PROBES = 8
_PROBE_SEED = 20_251
_WAVES = 12


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
