"""Weight-only quantized linears as edgepress's own ``QuantizedProduct``: codes of 2, 3, 4, 5, 6 or 8 bits in
tiles of 16 outputs, in the order in which a processor reads them.

The layout is that of ``runtime/kernels/src/product.h``. A tile has the scales of its groups of inputs, in
float16 where that holds all of them exactly; their zero points, if codes have some; and the codes, in lines
of 64 bytes, 4 for each output. A line holds 4, 8 or 16 inputs at 8, 4 or 2 bits, four inputs to each part of
a byte; at 3, 5 and 6 bits lines of the low 2 or 4 bits are followed by one of the others. A group is one of
the scheme, or a part of it: activations are rounded by groups of at most 128.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError
from ..build import Build
from ..graph_writer import Array
from .trellis_words import packed_words

OUTPUTS = 16
_STEP, _LINE = 16, 64
# Activations of weights with a scale per channel are rounded by groups of so many.
_LARGEST_GROUP, _CHANNEL_GROUP = 128, 64
Bytes = NDArray[np.uint8]
_Number = TypeVar("_Number", np.uint8, np.float16, np.float32)


@dataclass(frozen=True)
class TileLayout:
    """Storage of a matrix ``[rows, columns]``.

    Attributes:
        group: inputs whose activations have one scale; the last may reach beyond the columns.
        shared: groups that have one scale of the weights.
        half_scales: scales are float16, else float32.
        trellis: codes are symbols of a trellis' words (:mod:`.trellis_words`), inputs are rotated.
    """

    bits: int
    group: int
    rows: int
    columns: int
    shared: int
    zero_points: bool
    half_scales: bool
    trellis: bool = False

    @property
    def middle(self) -> int:
        """What fills unsigned codes: that which means zero where they have no zero points."""
        return 0 if self.trellis else 1 << (self.bits - 1)

    @property
    def groups(self) -> int:
        """Stored scales of a row."""
        return -(-self.columns // (self.group * self.shared))

    @property
    def padded(self) -> int:
        """Stored inputs of a row, with those that fill the last lines."""
        step = 32 if self.bits in (3, 5) and not self.trellis else 16
        return -(-self.columns // step) * step

    @property
    def head(self) -> int:
        """Bytes of a tile before its codes."""
        scales = OUTPUTS * (2 if self.half_scales else 4) + (OUTPUTS if self.zero_points else 0)
        return -(-self.groups * scales // _LINE) * _LINE

    @property
    def nbytes(self) -> int:
        """Bytes of all tiles."""
        return -(-self.rows // OUTPUTS) * (self.head + OUTPUTS * self.padded * self.bits // 8)

    def attributes(self) -> dict[str, int]:
        """Those of the operators that read it."""
        return {
            "N": self.rows,
            "K": self.columns,
            "bits": self.bits,
            "group": self.group,
            "zero_points": int(self.zero_points),
            "scale_bits": 16 if self.half_scales else 32,
            "shared": self.shared,
            **({"trellis": 1} if self.trellis else {}),
        }


def tile_layout(scheme: Scheme, rows: int, columns: int, name: str, *, half_scales: bool) -> TileLayout:
    """The storage for ``scheme`` of the linear or table ``name``."""
    wanted = scheme.group_size
    if wanted is None:
        group, shared = _CHANNEL_GROUP, -(-columns // _CHANNEL_GROUP)
    elif columns % wanted:
        raise ShapeError(
            f"{name}: its {columns} inputs are not a multiple of the group size {wanted}",
            fix="choose a group size that divides them, or null for one scale per channel",
        )
    elif wanted % _STEP:
        raise ShapeError(
            f"{name}: groups of {wanted} are no multiple of {_STEP}",
            fix=f"compress with a group size that is a multiple of {_STEP}",
        )
    else:
        group = max(size for size in range(_STEP, _LARGEST_GROUP + 1, _STEP) if wanted % size == 0)
        shared = wanted // group
    zero_points = not scheme.symmetric
    return TileLayout(
        scheme.bits, group, rows, columns, shared, zero_points, half_scales, trellis=scheme.of_trellis
    )


def tile_weight(
    build: Build, read: Callable[[], Sequence[QTensor]], layout: TileLayout, name: str
) -> ir.Value:
    """The initializer ``[bytes]`` uint8 of the matrices that ``read`` returns, one below the other."""
    return build.graph.weight(
        f"{name}.tiles", ir.DataType.UINT8, [layout.nbytes], lambda: _packed(read(), layout)
    )


def _packed(tensors: Sequence[QTensor], layout: TileLayout) -> Bytes:
    zero = layout.middle
    codes = np.concatenate([tensor.codes.numpy() for tensor in tensors]).view(np.uint8) + np.uint8(zero)
    scales = np.concatenate([tensor.scale.numpy() for tensor in tensors])
    zeros = None
    if layout.zero_points:
        zeros = np.concatenate([_zero_points(tensor) for tensor in tensors]).view(np.uint8) + np.uint8(zero)
    return pack_tiles(codes, scales.astype(np.float32), zeros, layout)


def tile_product(
    build: Build,
    value: ir.Value,
    linears: Sequence[Linear],
    scheme: Scheme,
    name: str,
    bias: ir.Value | None,
    *,
    gated: bool = False,
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias``; ``gated`` joins its halves to ``silu(first) · second``."""
    width, weights = sum(linear.out_features for linear in linears), build.weights
    half = all(fits_float16(weights.scales(linear.name)) for linear in linears)
    layout = tile_layout(scheme, width, linears[0].in_features, linears[0].name, half_scales=half)
    tiles = tile_weight(build, lambda: [weights.quantized(linear.name) for linear in linears], layout, name)
    if scheme.of_trellis:
        value = _rotated(build, value, layout.columns)
    return product_node(build, value, tiles, layout, name, bias, gated=gated)


def _rotated(build: Build, value: ir.Value, columns: int) -> ir.Value:
    """``value [..., columns]`` in the basis of a trellis' words, once for all products that read it."""
    if value not in build.rotated_inputs:
        name = f"{value.name}.rotated"
        build.rotated_inputs[value] = build.graph.own("RotateInputs", name, [value], 1, K=columns)[0]
    return build.rotated_inputs[value]


def product_node(
    build: Build,
    value: ir.Value,
    tiles: ir.Value,
    layout: TileLayout,
    name: str,
    bias: ir.Value | None = None,
    *,
    gated: bool = False,
) -> ir.Value:
    """``value [..., columns]`` times the weights in ``tiles [bytes]``: ``[..., rows]``, or half of them when
    ``gated``.
    """
    inputs = [value, tiles] if bias is None else [value, tiles, bias]
    return build.graph.own(
        "QuantizedProduct", name, inputs, 1, **layout.attributes(), gated=int(gated), exact=int(build.exact)
    )[0]


def routed_product(
    build: Build,
    rows: ir.Value,
    counts: ir.Value,
    matrices: Sequence[Sequence[Linear]],
    scheme: Scheme,
    name: str,
    *,
    gated: bool = False,
) -> ir.Value:
    """``rows [rows, columns]``, of which the first ``counts[0]`` are multiplied with the first of the
    ``matrices``, the next ``counts[1]`` with the second, and so on: ``[rows, outputs]``. A matrix is several
    linears one below the other, whose halves ``gated`` joins. One without rows is not read.
    """
    linears, weights = matrices[0], build.weights
    half = all(fits_float16(weights.scales(linear.name)) for matrix in matrices for linear in matrix)
    width = sum(linear.out_features for linear in linears)
    layout = tile_layout(scheme, width, linears[0].in_features, linears[0].name, half_scales=half)

    def make() -> Array:
        read = ([weights.quantized(linear.name) for linear in matrix] for matrix in matrices)
        return np.concatenate([_packed(tensors, layout) for tensors in read])

    tiles = build.graph.weight(f"{name}.tiles", ir.DataType.UINT8, [len(matrices) * layout.nbytes], make)
    attributes = {**layout.attributes(), "gated": int(gated), "exact": int(build.exact)}
    return build.graph.own("RoutedProduct", name, [rows, tiles, counts], 1, **attributes)[0]


def gates_together(build: Build, linears: Sequence[Linear]) -> bool:
    """Whether gate and up can be one gated product: of one scheme for the weights alone, without biases, in
    whole tiles.
    """
    schemes = [build.weights.scheme(linear.name) for linear in linears]
    plain = all(not linear.bias and linear.out_features % OUTPUTS == 0 for linear in linears)
    return build.tiles and plain and len(set(schemes)) == 1 and tiled(build, linears[0].name)


def tiled(build: Build, linear: str) -> bool:
    """Whether the product of ``linear`` is one of ours: only its weights are quantized, to integers."""
    scheme = build.weights.scheme(linear)
    return build.tiles and scheme is not None and not scheme.activations


def fits_float16(scales: Tensor) -> bool:
    """Whether float16 holds all ``scales`` exactly."""
    return torch.equal(scales.to(torch.float16).to(torch.float32), scales)


def pack_tiles(codes: Bytes, scales: NDArray[np.float32], zeros: Bytes | None, layout: TileLayout) -> Bytes:
    """Tiles ``[bytes]`` of unsigned ``codes [rows, columns]``, ``scales [rows, groups]`` and ``zeros [rows,
    groups]``. Codes that fill the last tile and line are zero when they are dequantized.
    """
    tiles, groups = -(-layout.rows // OUTPUTS), layout.groups
    points = np.full((tiles * OUTPUTS, groups), layout.middle, np.uint8)
    if zeros is not None:
        points[: layout.rows] = zeros
    filled = np.empty((tiles * OUTPUTS, layout.padded), np.uint8)
    filled[:] = points[:, -1:]
    filled[: layout.rows, : layout.columns] = codes
    steps = np.zeros((tiles * OUTPUTS, groups), np.float16 if layout.half_scales else np.float32)
    steps[: layout.rows] = scales
    parts = [_columns(steps, tiles, groups).view(np.uint8).reshape(tiles, -1)]
    if zeros is not None:
        parts.append(_columns(points, tiles, groups).reshape(tiles, -1))
    parts.append(np.zeros((tiles, layout.head - sum(part.shape[1] for part in parts)), np.uint8))
    lines = packed_words if layout.trellis else _lines_of
    parts.append(lines(filled.reshape(tiles, OUTPUTS, layout.padded), layout.bits))
    return np.concatenate(parts, axis=1).reshape(-1)


def _lines_of(codes: Bytes, bits: int) -> Bytes:
    """``[tiles, bytes]`` of ``codes [tiles, outputs, inputs]``."""
    tiles = len(codes)
    if 8 % bits == 0:
        return _lines(codes, bits).reshape(tiles, -1)
    below = 2 if bits == 3 else 4
    low = _lines(codes & np.uint8((1 << below) - 1), below)
    high = _lines(codes >> np.uint8(below), bits - below)
    parts = [low.reshape(tiles, high.shape[1], -1, _LINE), high[:, :, None]]
    return np.concatenate(parts, axis=2).reshape(tiles, -1)


def _lines(codes: Bytes, bits: int) -> Bytes:
    """``[tiles, lines, 64]`` of ``codes [tiles, outputs, inputs]`` of ``bits`` each."""
    tiles, outputs, inputs = codes.shape
    shares = 8 // bits  # codes in a byte
    parts = codes.reshape(tiles, outputs, inputs // (4 * shares), shares, 4)
    lines = np.zeros((tiles, inputs // (4 * shares), outputs, 4), np.uint8)
    for share in range(shares):
        lines |= parts[..., share, :].transpose(0, 2, 1, 3) << np.uint8(bits * share)
    return lines.reshape(tiles, -1, _LINE)


def _columns(values: NDArray[_Number], tiles: int, groups: int) -> NDArray[_Number]:
    """``values [tiles · outputs, groups]`` as ``[tiles, groups, outputs]``."""
    return np.ascontiguousarray(values.reshape(tiles, OUTPUTS, groups).transpose(0, 2, 1))


def _zero_points(tensor: QTensor) -> Array:
    assert tensor.zero_point is not None
    return tensor.zero_point.numpy()
