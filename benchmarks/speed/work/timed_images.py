"""``TimedImages``: the unit of work of an encoder of images: one batch, then images alone.

Numbers are drawn at random from a seed as prepared pixels are: reading and resizing files is not in the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....errors import InputError
from ....runtime.bundle.bundle import Bundle
from ....runtime.engine.image_encoder import ImageModel
from ....runtime.images.prepared import Pixels
from .loaded_work import Sample, Work, timed


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
        return ImageWork(model, pixels, self.singles)

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


class ImageWork:
    """An encoder with its images; see :class:`.loaded_work.Work`."""

    def __init__(self, model: ImageModel, pixels: Pixels, singles: int) -> None:
        self.session = model.session
        self._model, self._pixels, self._singles = model, pixels, singles
        self.phases = {"batch": "batch", "single": "single"}

    @property
    def graph_runs(self) -> tuple[int, int]:
        """See :class:`.loaded_work.Work`."""
        return 1, 1 + self._singles

    @property
    def sessions(self) -> list[tuple[Any, int]]:
        """See :class:`.loaded_work.Work`."""
        return [(self.session, self.graph_runs[1])]

    def brief(self) -> None:
        """The same: it is short."""
        self()

    def repeat(self, phase: str) -> int:
        """``batch``, the only phase that is repeated alone."""
        self._model.answers(self._pixels)
        return len(self._pixels)

    def __call__(self) -> Sample:
        """Nanoseconds: ``batch`` for the whole batch, ``single`` for each image alone."""
        whole = timed(partial(self._model.answers, self._pixels))
        places = [index % len(self._pixels) for index in range(self._singles)]
        alone = [self._pixels[place : place + 1] for place in places]
        return {"batch": [whole], "single": [timed(partial(self._model.answers, one)) for one in alone]}
