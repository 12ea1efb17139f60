"""``marlin-24`` of compressed-tensors: matrices with two of four weights, as the kernel Marlin takes them
(Frantar et al., MARLIN, 2024, arXiv 2408.11743), of 4 or 8 bits.

The weights that are there are a matrix ``[in / 2, out]`` of codes plus 2^(bits−1). ``weight_packed`` int32
holds it in tiles of 16 × 64, each in the order in which the threads of a warp take them. ``meta`` int16 says
where the two of four are, 2 bits each, in the order of CUTLASS' sparse products; ``scale_packed [groups,
out]`` is float16, in another order where there are several groups.

Matrices of which only what is not 0 is stored, with a mask of bits, lowest first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .....errors import CheckpointError
from ....numbers.qtensor import QTensor
from ....numbers.scheme import Scheme
from ..coded_weights import CodedWeight, Read
from ._parts import FLOATS, WORD, Grid, Parts, as_codes, dequantized, scheme_of, whole

SCALES = "scale_packed"
BITS = (4, 8)
_TILE, _WIDE = 16, 64  # rows and columns of a tile
_EIGHTH, _GROUP = 8, 128
_FOURS = 4  # in a number of meta, whose bits are places in four weights
SPARSE = ("compressed",)
_WITHIN = ("", "weight.")  # how a module's parts begin: 2:4 forms leave the word out


def marlin_weight(parts: Parts, given: Mapping[str, Any]) -> CodedWeight:
    """The linear that ``parts`` store, in what the ``weights`` of its group have ``given``."""
    groups, out = parts.take(SCALES, ("F16",))
    rows, words = parts.take("weight_packed", ("I32",))
    meta = parts.take("meta", ("I16",))
    bits, inputs = whole(given, "num_bits"), 2 * _TILE * rows
    fits = bits in BITS and out % _WIDE == 0 and words * (WORD // bits) == _TILE * out
    fits = fits and groups in (1, -(-inputs // _GROUP)) and inputs % groups == 0
    if not fits or meta != (inputs // (2 * _TILE), 2 * out):
        raise parts.refuse(
            f"{out} outputs in tiles of {_WIDE}, of {' or '.join(map(str, BITS))} bits, were expected"
        )
    stored = _Stored(parts.module, bits, (out, inputs), groups)
    return CodedWeight(
        stored.shape, tuple(parts.names), bits, stored.dequantized, stored.scheme, stored.codes
    )


@dataclass(frozen=True)
class _Stored:
    """A linear whose parts fit."""

    module: str
    bits: int
    shape: tuple[int, int]
    groups: int

    def dequantized(self, read: Read) -> Tensor:
        return dequantized(self._grid(read))

    def scheme(self, read: Read) -> Scheme | None:
        return scheme_of(self.bits, self.shape[1], self._no_zero_point(), None)

    def codes(self, scheme: Scheme, read: Read) -> QTensor:
        return as_codes(self.module, scheme, self._grid(read))

    def _grid(self, read: Read) -> Grid:
        out, inputs = self.shape
        places = _places(read(f"{self.module}.meta"), out)
        if bool((places[..., 0] >= places[..., 1]).any()):
            raise CheckpointError(f"{self.module}.meta names places that are no two of four")
        there = self._there(read(f"{self.module}.weight_packed")).T.reshape(out, -1, 2)
        codes = torch.zeros(out, inputs // 4, 4, dtype=torch.int8).scatter_(-1, places, there)
        return Grid(self.bits, codes.view(out, inputs), self._scale(read), self._no_zero_point())

    def _there(self, words: Tensor) -> Tensor:
        """The codes ``[in / 2, out]`` that are there."""
        out, inputs = self.shape
        shifts = torch.arange(0, WORD, self.bits, dtype=torch.int32)
        stored = (words.unsqueeze(-1) >> shifts & ((1 << self.bits) - 1)).view(-1, _TILE * _WIDE)
        tiles = torch.empty_like(stored)
        tiles[:, _order(self.bits)] = stored
        rows = tiles.view(inputs // 2 // _TILE, out // _TILE, _TILE, _TILE).transpose(1, 2)
        return (rows.reshape(inputs // 2, out) - (1 << (self.bits - 1))).to(torch.int8)

    def _scale(self, read: Read) -> Tensor:
        """``[out, groups]`` float32."""
        stored = read(f"{self.module}.{SCALES}").to(torch.float32)
        # Of two groups the writer takes each for all of the inputs that are there, which are half.
        if self.groups > 2:
            stored = stored.view(-1, _EIGHTH // 2, 2).transpose(1, 2).reshape(self.groups, -1)
        return stored.T.contiguous()

    def _no_zero_point(self) -> Tensor:
        return torch.zeros(self.shape[0], self.groups, dtype=torch.int8)


def _order(bits: int) -> Tensor:
    """Which of a tile's codes each stored one is."""
    lane, step, block, row = torch.meshgrid(*map(torch.arange, (32, 4, 2, 4)), indexing="ij")
    rows = 2 * (lane % 4) + row % 2 + 8 * (row // 2)
    order = 16 * rows + 256 * (lane // 8) + 8 * (lane // 4 % 2) + 4 * block + step
    # Within a word first the even ones, then the odd.
    return order.view(-1, WORD // bits // 2, 2).transpose(1, 2).flatten()


def _places(meta: Tensor, out: int) -> Tensor:
    """``[out, in / 4, 2]`` int64: where the two of each four weights are."""
    columns = torch.arange(meta.numel() // out)
    row = torch.arange(out)[:, None]
    turned = row // 64 * 64 + row % 64 // 8 * 4 + row % 4 // 2 * 32 + row % 2 * 2 + row % 8 // 4
    offset = columns // 2 * 2 * out + (turned // 2 * 2 + columns % 2) * 2 + turned % 2
    fours = meta.flatten()[offset].to(torch.int64)
    shifts = torch.arange(0, 4 * _FOURS, 2)
    return (fours.unsqueeze(-1) >> shifts & 3).view(out, -1, 2)


def take_sparse(parts: Parts, read: Read) -> tuple[int, int] | None:
    """The shape of the matrix; None where it is stored whole."""
    start = next((start for start in _WITHIN if f"{start}compressed" in parts), None)
    if start is None:
        return None
    parts.take(f"{start}compressed", (*FLOATS, "F8_E4M3", "I8"), None)
    mask = parts.take(f"{start}bitmask", ("U8",))
    parts.take(f"{start}shape", ("I64", "I32"), None)
    sizes = [int(size) for size in read(parts.names[-1]).flatten()[:3]]
    if f"{start}row_offsets" in parts:
        parts.take(f"{start}row_offsets", ("I64", "I32"), 1)
    if len(sizes) != 2 or min(sizes) < 1 or mask != (sizes[0], -(-sizes[1] // 8)):
        raise parts.refuse(f"its shape says {sizes}")
    return sizes[0], sizes[1]


def sparse_codes(module: str, names: Collection[str], shape: tuple[int, int], read: Read) -> Tensor:
    """``[out, in]`` in the type of what is stored."""
    start = next(start for start in _WITHIN if f"{start}bitmask" in names)
    packed, values = read(f"{module}.{start}bitmask"), read(f"{module}.{start}compressed").flatten()
    bits = torch.stack([packed >> index & 1 for index in range(8)], -1).flatten(1)
    mask = bits[:, : shape[1]].to(torch.bool)
    if int(mask.sum()) != len(values):
        raise CheckpointError(f"{module} has {len(values)} values where its mask has {int(mask.sum())}")
    plain = values.view(torch.uint8) if values.element_size() == 1 else values
    dense = torch.zeros(shape, dtype=plain.dtype)
    dense[mask] = plain
    return dense.view(values.dtype)
