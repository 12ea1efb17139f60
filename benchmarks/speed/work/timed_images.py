"""``TimedImages``: the unit of work of an encoder of images: one batch, then images alone.

Numbers are drawn at random from a seed as prepared pixels are: reading and resizing files is not in the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....errors import InputError
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.image_encoder import ImageModel
from .loaded_work import BatchWork, Work


@dataclass(frozen=True)
class TimedImages:
    """Read one batch of ``batch`` images, then ``singles`` alone; ``units`` as of
    :class:`.timed_work.TimedGeneration`.
    """

    units: ClassVar[dict[str, str]] = {"batch": "image"}
    batch: int = 32
    singles: int = 8
    seed: int = 0

    def check(self, bundle: Bundle) -> None:
        """Raise InputError when the bundle cannot do this: it reads texts, or the sizes are below 1."""
        if min(self.batch, self.singles) < 1:
            raise InputError("batch and singles must be at least 1")
        _size(bundle)

    def open(self, bundle: Bundle, *, threads: int, provider: str, profile: Path | None = None) -> Work:
        """Load the bundle, ready to work."""
        model = ImageModel(bundle, threads=threads, provider=provider, profile=profile)
        shape = (self.batch, 3, *_size(bundle))
        pixels = np.random.default_rng(self.seed).standard_normal(shape, dtype=np.float32)
        return BatchWork(model.session, model.answers, pixels, self.singles)

    def describe(self, bundle: Bundle) -> dict[str, Any]:
        """JSON for the record."""
        return {
            "kind": "see",
            "scenario": "offline and single",
            "batch": self.batch,
            "size": list(_size(bundle)),
            "seed": self.seed,
            "includes": {"decode": False, "resize": False, "load": False},
        }


def _size(bundle: Bundle) -> tuple[int, int]:
    image = bundle.encoder.image
    if image is None or image.size is None:
        raise InputError(f"{bundle.path} reads texts, and no images")
    return image.size
