"""From images to the numbers that a model reads, as transformers' own processors on Pillow make them, bit for
bit: resized, cropped about the centre, rescaled and normalized, each step in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..bundle.preprocessing import Preprocessing
from .image_file import MOST_PIXELS, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.float32]


def read_images(paths: Iterable[Path | str], how: Preprocessing) -> Pixels:
    """The images in the files ``paths``: ``[images, 3, height, width]``."""
    return np.stack([prepared(open_image(path), how, str(path)) for path in paths])


def prepared(image: Image, how: Preprocessing, name: str) -> Pixels:
    """An RGB ``image`` as ``[3, height, width]``; ``name`` is for the error, as of :func:`read_images`."""
    pixels = np.asarray(_resized(image, how, name))
    if how.crop is not None:
        pixels = _cropped(pixels, *how.crop)
    found: Pixels = pixels.astype(np.float32)
    if how.scale is not None:
        found = (pixels.astype(np.float64) * how.scale).astype(np.float32)
    if how.mean is not None and how.std is not None:
        mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
        found = np.divide(found - mean, std, dtype=np.float32)
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def _resized(image: Image, how: Preprocessing, name: str) -> Image:
    width, height = image.size
    if how.resize is not None:
        height, width = how.resize
    elif how.shorter is not None:
        short, long = sorted((width, height))
        long = int(how.shorter * long / short)
        if long * how.shorter > MOST_PIXELS:
            raise InputError(
                f"{name} is an image of {width} × {height} pixels, too narrow for this model",
                why=f"its shorter side would become {how.shorter} pixels, and the other {long:,}",
                fix="cut a part of it out whose sides are more alike",
            )
        height, width = (long, how.shorter) if width <= height else (how.shorter, long)
    else:
        return image
    return image.resize((width, height), resample=_filter(how.resample))


def _filter(name: str) -> Any:
    from PIL.Image import Resampling

    return Resampling[name.upper()]


def _cropped(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """``height × width`` about the centre of ``pixels [rows, columns, 3]``, black where they end."""
    for axis, size in enumerate((height, width)):
        missing = max(size - pixels.shape[axis], 0)
        before = -(-missing // 2)
        margins: Sequence[tuple[int, int]] = [
            (before, missing - before) if axis == one else (0, 0) for one in range(3)
        ]
        pixels = np.pad(pixels, margins) if missing else pixels
        start = (pixels.shape[axis] - size) // 2
        pixels = np.take(pixels, range(start, start + size), axis=axis)
    return pixels
