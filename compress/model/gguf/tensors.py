"""The tensors of a GGUF file under a checkpoint's names, a block at a time: dequantized by the gguf package,
their rows in the checkpoint's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....errors import CheckpointError
from ..anatomy import Shapes
from .entry import Entry, Part

# Bytes of a file that are dequantized at once: the package's own temporaries are several times as large.
_TILE = 4 << 20
# Bytes of gate, of up and of down of experts that are in memory at once, as floats.
_EXPERTS = 256 << 20
_WAY_OUT = "take the model's safetensors checkpoint"


@dataclass(frozen=True)
class _Piece:
    """What the file has of a ``part``: an ``entry``, these ``rows`` of it, or where it is stacked the one of
    this ``index``; its ``shape`` there. Those of one ``order`` are read together.
    """

    order: tuple[int, str, int]
    entry: Entry
    part: Part
    shape: tuple[int, ...]
    index: int | None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class GgufTensors:
    """What the file at ``path`` holds of a model.

    Attributes:
        entries: each tensor of the file, with those of the checkpoint that it is made of.
        shapes: of the checkpoint's tensors by name, linears ``[out, in]``.
        transposed: how names end of those that a checkpoint stores ``[in, out]``.
        found: the file's tensors by name, as the gguf package reads them: mapped, not yet floats.
        joined: whether the checkpoint has one tensor of all experts of a block too.
    """

    path: Path
    entries: Sequence[Entry]
    shapes: Shapes
    transposed: tuple[str, ...]
    found: dict[str, Any]
    joined: bool

    @classmethod
    def open(
        cls,
        path: Path,
        entries: Sequence[Entry],
        shapes: Shapes,
        transposed: tuple[str, ...],
        passed_over: Sequence[str],
        joined: bool,
    ) -> GgufTensors:
        """Hold the file against the model; tensors that are ``passed_over`` are for the caller."""
        from gguf import GGUFReader

        found = {tensor.name: tensor for tensor in GGUFReader(path).tensors if tensor.name not in passed_over}
        opened = cls(path, entries, shapes, transposed, found, joined)
        for entry in entries:
            opened._check(entry)
        opened._check_head()
        if more := sorted(found.keys() - {entry.name for entry in entries} - {_HEAD}):
            raise CheckpointError(
                f"{path} holds {more[0]}, which the model that it describes has no place for",
                why=f"{len(more)} such tensors: it would answer without them",
                fix=_WAY_OUT,
            )
        return opened

    def _check(self, entry: Entry) -> None:
        there, wanted = self.found.get(entry.name), self._shape(entry)
        shape = None if there is None else tuple(int(size) for size in there.shape[::-1])
        if shape != wanted:
            raise CheckpointError(
                f"{self.path} does not hold the model that it describes: {entry.name} is "
                f"{'missing' if shape is None else f'{shape}, not {wanted}'}",
                fix=_WAY_OUT,
            )

    def _check_head(self) -> None:
        """A head beside a model whose head is its embedding must be that once more."""
        head, embedding = self.found.get(_HEAD), self.found.get(_EMBEDDING)
        if head is None or any(entry.name == _HEAD for entry in self.entries):
            return
        if embedding is None or not np.array_equal(head.data, embedding.data):
            raise CheckpointError(
                f"{self.path} holds a head, and the head of the model that it describes is its embedding",
                fix=_WAY_OUT,
            )

    def _shape(self, entry: Entry) -> tuple[int, ...]:
        part = entry.parts[0]
        _, *others = self.shapes[part.stored]
        rows = self._rows(part) if entry.stacked else sum(map(self._rows, entry.parts))
        own = part.shape or (rows, *others)
        return (len(entry.parts), *own) if entry.stacked else own

    def _rows(self, part: Part) -> int:
        return self.shapes[part.stored][0] if part.rows is None else len(part.rows)

    def blocks(self) -> Iterator[dict[str, Tensor]]:
        """The tensors in float32, those of a block together, experts of a large one some at a time, and each
        other one by itself.
        """
        pieces = [piece for entry in self.entries for piece in self._pieces(entry)]
        ordered = sorted(pieces, key=lambda piece: piece.order)
        for _, group in groupby(ordered, key=lambda piece: piece.order):
            yield self._read(list(group))

    def _pieces(self, entry: Entry) -> Iterator[_Piece]:
        block, own = _block(entry), self._shape(entry)
        if not entry.stacked:
            run, end = -1 if entry.expert is None else self._run(entry.expert, own), 0
            for part in entry.parts:
                start, end = end, end + self._rows(part)
                if len(entry.parts) == 1:
                    yield _Piece((*block, run), entry, part, own, None)
                else:
                    yield _Piece((*block, run), entry, part, (end - start, *own[1:]), None, (start, end))
            return
        for index, part in enumerate(entry.parts):
            yield _Piece((*block, self._run(index, own[1:])), entry, part, own[1:], index)

    def _run(self, expert: int, shape: tuple[int, ...]) -> int:
        """Which run of experts one is in, whose gate, up and down have the size of ``shape``."""
        return 0 if self.joined else expert // max(1, _EXPERTS // (4 * prod(shape)))

    def _read(self, group: Sequence[_Piece]) -> dict[str, Tensor]:
        tensors: dict[str, NDArray[np.float32]] = {}
        rows: Counter[str] = Counter()
        for piece in group:
            part, shape = piece.part, self.shapes[piece.part.stored]
            value = _floats(self.found[piece.entry.name], piece.index)
            value = (value if piece.rows is None else value[slice(*piece.rows)]).reshape(piece.shape)
            rows[part.stored] += self._rows(part)
            stored = part.back(value)
            if part.rows is None:
                tensors[part.stored] = stored.reshape(shape)
                continue
            if part.stored not in tensors:
                tensors[part.stored] = np.empty(shape, np.float32)
            tensors[part.stored][part.rows] = stored.reshape(len(part.rows), *shape[1:])
        for name, count in rows.items():
            if count != self.shapes[name][0]:
                raise CheckpointError(
                    f"{self.path} holds {count} of the {self.shapes[name][0]} rows of {name}", fix=_WAY_OUT
                )
        return {name: self._stored(name, tensor) for name, tensor in tensors.items()}

    def _stored(self, name: str, tensor: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tensor.T) if name.endswith(self.transposed) else tensor)


_HEAD, _EMBEDDING = "output.weight", "token_embd.weight"


def _block(entry: Entry) -> tuple[int, str]:
    """The place among the others: tables and norms around the blocks first, each by its name."""
    first, _, rest = entry.name.partition(".")
    return (int(rest.partition(".")[0]), "") if first == "blk" else (-1, entry.name.rpartition(".")[0])


def _floats(tensor: Any, index: int | None) -> NDArray[np.float32]:
    """All numbers of a tensor of the file, or of the one of this ``index`` in it, in a few rows at a time."""
    from gguf.quants import dequantize

    data = tensor.data if index is None else tensor.data[index]
    stored = data.reshape(-1, data.shape[-1])
    found = np.empty((len(stored), int(tensor.shape[0])), np.float32)
    step = max(1, _TILE // max(1, stored[0].nbytes))
    for start in range(0, len(stored), step):
        found[start : start + step] = dequantize(stored[start : start + step], tensor.tensor_type)
    return found
