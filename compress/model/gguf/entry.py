"""``Entry``: a tensor of a GGUF file, and the checkpoint's tensors that it is made of, forth and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.intp]
_STEPS = (0, 1, -1, 2, -2)


@dataclass(frozen=True)
class Part:
    """A stored tensor: its ``rows [out]`` in the order that they have there (None: as they are), what is
    added to it, what it is multiplied by (``times``), and its ``shape`` there where that is another. A
    ``decay`` is stored as its logarithm: there it is what a state is multiplied by in each step, ``-exp`` of
    that. The last two dimensions of a ``swapped`` one are the other way round there.
    """

    stored: str
    rows: Rows | None = None
    added: float = 0.0
    times: float = 1.0
    shape: tuple[int, ...] | None = None
    decay: bool = False
    swapped: bool = False

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor as it is there."""
        ordered = array if self.rows is None else array[self.rows]
        if self.swapped and self.shape is not None:
            first, last, rows = self.shape
            return ordered.reshape(first, rows, last).swapaxes(1, 2)
        ordered = ordered if self.shape is None else ordered.reshape(self.shape)
        if self.decay:
            return _decay(ordered)
        scaled = ordered if self.times == 1 else ordered * np.float32(self.times)
        return scaled + np.float32(self.added) if self.added else scaled

    def back(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The numbers of the stored tensor, or of those rows of it, from what is there."""
        if self.decay:
            return _logarithms(array)
        array = array.swapaxes(-1, -2) if self.swapped else array
        plain = array - np.float32(self.added) if self.added else array
        return plain if self.times == 1 else plain / np.float32(self.times)


@dataclass(frozen=True)
class Entry:
    """The tensor ``name`` of the file; of several ``parts`` where it is ``stacked``, else of their rows one
    after the other; or of one ``expert``.
    """

    name: str
    parts: tuple[Part, ...]
    stacked: bool = False
    expert: int | None = None

    def of(self, arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """That of the arrays of the parts, each as it is there."""
        found = list(arrays)
        return np.stack(found) if self.stacked else found[0] if len(found) == 1 else np.concatenate(found)


def _decay(logarithms: NDArray[Any]) -> NDArray[Any]:
    """As the model's own torch works it out, to the last bit."""
    return np.asarray((-torch.exp(torch.from_numpy(np.ascontiguousarray(logarithms)))).numpy())


def _logarithms(decay: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers that :func:`_decay` makes these of: two steps of float32 are within what its own
    rounding moves them.
    """
    with np.errstate(all="ignore"):  # what is no decay becomes no number, which is refused
        nearest = np.log(-decay.astype(np.float64)).astype(np.float32)
    found, left = nearest.copy(), np.ones(nearest.shape, bool)
    for steps in _STEPS:
        tried = nearest
        for _ in range(abs(steps)):
            tried = np.nextafter(tried, np.float32(np.copysign(np.inf, steps)))
        exact = left & (_decay(tried) == decay)
        found[exact], left = tried[exact], left & ~exact
    return found
