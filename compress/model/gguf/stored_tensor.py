"""``StoredTensor``: where a tensor lies in a GGUF file, and its numbers as floats, a few rows at a time."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .few_bits import KINDS, floats_of

# Bytes of a file that are dequantized at once: the package's own temporaries are several times as large.
_TILE = 4 << 20


@dataclass(frozen=True)
class StoredTensor:
    """``dims`` as GGUF counts them, inputs first; its type, ``kind``, of which ``block`` numbers take
    ``width`` bytes; ``start``, its first byte in the file's data, or in the file.
    """

    dims: tuple[int, ...]
    kind: str
    block: int
    width: int
    start: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Inputs last."""
        return self.dims[::-1]

    @property
    def count(self) -> int:
        """Of its numbers."""
        return prod(self.dims)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count // self.block * self.width

    def stored(self, path: Path) -> NDArray[np.uint8]:
        """Its bytes in the file ``path``, ``[..., bytes of a row]``, mapped."""
        shape = (*self.shape[:-1], self.dims[0] // self.block * self.width)
        return np.memmap(path, np.uint8, "r", self.start, shape)

    def floats(self, path: Path, index: int | None) -> NDArray[np.float32]:
        """``[rows, in]``: all of it, or what is at this ``index`` of its first dimension."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        data = self.stored(path) if index is None else self.stored(path)[index]
        rows = data.reshape(-1, data.shape[-1])
        found = np.empty((len(rows), self.dims[0]), np.float32)
        step = max(1, _TILE // max(1, rows.shape[1]))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            if self.kind in KINDS:
                found[start : start + step] = floats_of(some, self.kind, self.block)
            else:
                found[start : start + step] = dequantize(some, GGMLQuantizationType[self.kind])
        return found
