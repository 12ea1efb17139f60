"""The tensors of a GGUF file under a checkpoint's names, a block at a time: dequantized by the gguf package,
or as :mod:`.few_bits` says, their rows in the checkpoint's order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....errors import CheckpointError
from ..anatomy import Shapes
from .entry import Entry, Part
from .few_bits import KINDS
from .stored_tensor import StoredTensor

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
        found: where the file's tensors lie, by name.
        joined: whether the checkpoint has one tensor of all experts of a block too.
    """

    path: Path
    entries: Sequence[Entry]
    shapes: Shapes
    transposed: tuple[str, ...]
    found: Mapping[str, StoredTensor]
    joined: bool

    @classmethod
    def open(
        cls,
        path: Path,
        entries: Sequence[Entry],
        shapes: Shapes,
        transposed: tuple[str, ...],
        found: Mapping[str, StoredTensor],
        joined: bool,
    ) -> GgufTensors:
        """Hold the file, or what was ``found`` there and is not for the caller, against the model."""
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
        shape = None if there is None else there.shape
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
        if embedding is None or not np.array_equal(head.stored(self.path), embedding.stored(self.path)):
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

    def groups(self) -> dict[str, int]:
        """By matrix of the checkpoint, of those that the file has in a type of :data:`.few_bits.KINDS` alone,
        how many weights share a scale there.
        """
        sizes: dict[str, set[int]] = {}
        for entry in self.entries:
            there = self.found[entry.name]
            for part in entry.parts:
                sizes.setdefault(part.stored, set()).add(there.block if there.kind in KINDS else 0)
        return {name: max(found) for name, found in sizes.items() if len(found) == 1 and max(found)}

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
            value = self.found[piece.entry.name].floats(self.path, piece.index)
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
