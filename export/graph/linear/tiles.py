"""Weight-only quantized linears as edgepress's own ``QuantizedProduct``: codes of 2, 3, 4 or 8 bits in tiles
of 16 outputs, in the order in which a processor reads them.

The layout is that of ``runtime/kernels/src/product.h``: a tile has its groups of inputs one after the other,
each with its codes, 16 float32 scales, and 16 zero points where codes have some. Codes stand in lines of 64
bytes, 4 for each output; a line holds 4, 8 or 16 inputs at 8, 4 or 2 bits, four inputs to each part of a
byte. 3-bit codes are their two low bits, followed by lines of the third. A group is one of the scheme, or a
part of it: activations are rounded by groups of at most 128.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError
from ..build import Build
from ..graph_writer import Array

OUTPUTS = 16
_LARGEST_GROUP, _COVERING_GROUP = 128, 64
Bytes = NDArray[np.uint8]
_Number = TypeVar("_Number", np.uint8, np.float32)


@dataclass(frozen=True)
class TileLayout:
    """Storage of a matrix ``[rows, columns]``.

    Attributes:
        repeats: stored groups that share one scale of the scheme; 0 where one scale serves a whole row.
    """

    bits: int
    group: int
    rows: int
    columns: int
    zero_points: bool
    repeats: int

    @property
    def groups(self) -> int:
        """Stored groups of a row, the last of which may reach beyond the columns."""
        return -(-self.columns // self.group)

    @property
    def nbytes(self) -> int:
        """Bytes of all tiles."""
        group = 2 * self.group * self.bits + 4 * OUTPUTS + (OUTPUTS if self.zero_points else 0)
        return -(-self.rows // OUTPUTS) * self.groups * group

    def attributes(self) -> dict[str, int]:
        """Those of the operators that read it."""
        return {
            "N": self.rows,
            "K": self.columns,
            "bits": self.bits,
            "group": self.group,
            "zero_points": int(self.zero_points),
        }


def tile_layout(scheme: Scheme, rows: int, columns: int, name: str) -> TileLayout:
    """The storage for ``scheme`` of the linear or table ``name``.

    Raises:
        ShapeError: the group does not divide the columns, or is no multiple of 16 (32 at 3 bits).
    """
    wanted = scheme.group_size or columns
    if columns % wanted:
        raise ShapeError(
            f"{name}: its {columns} inputs are not a multiple of the group size {wanted}",
            fix="choose a group size that divides them, or null for one scale per channel",
        )
    step = 32 if scheme.bits == 3 else 16
    dividing = [group for group in range(step, _LARGEST_GROUP + 1, step) if wanted % group == 0]
    if not dividing and scheme.group_size is not None:
        raise ShapeError(
            f"{name}: groups of {wanted} are no multiple of {step}",
            fix=f"compress with a group size that is a multiple of {step}, or export with --for standard",
        )
    group = max(dividing, default=_COVERING_GROUP)
    repeats = wanted // group if scheme.group_size is not None else 0
    return TileLayout(scheme.bits, group, rows, columns, not scheme.symmetric, repeats)


def tile_weight(
    build: Build, read: Callable[[], Sequence[QTensor]], layout: TileLayout, name: str
) -> ir.Value:
    """The initializer ``[bytes]`` uint8 of the matrices that ``read`` returns, one below the other."""

    def make() -> Array:
        tensors = read()
        zero = 1 << (layout.bits - 1)
        codes = np.concatenate([tensor.codes.numpy() for tensor in tensors]).view(np.uint8) + np.uint8(zero)
        scales = np.concatenate([_by_group(tensor.scale.numpy(), layout) for tensor in tensors])
        zeros = None
        if layout.zero_points:
            points = [_by_group(_zero_points(tensor), layout) for tensor in tensors]
            zeros = np.concatenate(points).view(np.uint8) + np.uint8(zero)
        return pack_tiles(codes, scales.astype(np.float32), zeros, layout)

    return build.graph.weight(f"{name}.tiles", ir.DataType.UINT8, [layout.nbytes], make)


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
    """``value · concat(weights)ᵀ + bias``; ``gated`` joins its halves to ``silu(first) · second``.

    Raises:
        ShapeError: the scheme does not fit the shape; names the layer.
    """
    width = sum(linear.out_features for linear in linears)
    layout = tile_layout(scheme, width, linears[0].in_features, linears[0].name)
    weights = build.weights
    tiles = tile_weight(build, lambda: [weights.quantized(linear.name) for linear in linears], layout, name)
    return product_node(build, value, tiles, layout, name, bias, gated=gated)


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
        "QuantizedProduct", name, inputs, 1, **layout.attributes(), gated=int(gated), exact=0
    )[0]


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


def pack_tiles(codes: Bytes, scales: NDArray[np.float32], zeros: Bytes | None, layout: TileLayout) -> Bytes:
    """Tiles ``[bytes]`` of unsigned ``codes [rows, columns]``, ``scales [rows, groups]`` and ``zeros [rows,
    groups]``. What fills the last tile and group is zero when it is dequantized.
    """
    tiles, groups = -(-layout.rows // OUTPUTS), layout.groups
    filled = np.full((tiles * OUTPUTS, groups * layout.group), 1 << (layout.bits - 1), np.uint8)
    points = np.full((tiles * OUTPUTS, groups), 1 << (layout.bits - 1), np.uint8)
    if zeros is not None:
        points[: layout.rows] = zeros
        filled[:] = np.repeat(points, layout.group, axis=1)
    filled[: layout.rows, : layout.columns] = codes
    steps = np.zeros((tiles * OUTPUTS, groups), np.float32)
    steps[: layout.rows] = scales
    blocks = filled.reshape(tiles, OUTPUTS, groups, layout.group).transpose(0, 2, 1, 3)
    if layout.bits == 3:
        low, third = blocks & np.uint8(3), blocks >> np.uint8(2)
        parts = [_lines(low, 2), _lines(third, 1)]
    else:
        parts = [_lines(blocks, layout.bits)]
    parts.append(_columns(steps, tiles, groups).view(np.uint8))
    if zeros is not None:
        parts.append(_columns(points, tiles, groups))
    return np.concatenate(parts, axis=-1).reshape(-1)


def _lines(codes: Bytes, bits: int) -> Bytes:
    """``[tiles, groups, bytes]`` of codes ``[tiles, groups, outputs, inputs]`` of ``bits`` each."""
    tiles, groups, outputs, inputs = codes.shape
    shares = 8 // bits  # codes in a byte
    parts = codes.reshape(tiles, groups, outputs, inputs // (4 * shares), shares, 4)
    lines = np.zeros((tiles, groups, inputs // (4 * shares), outputs, 4), np.uint8)
    for share in range(shares):
        lines |= parts[..., share, :].transpose(0, 1, 3, 2, 4) << np.uint8(bits * share)
    return lines.reshape(tiles, groups, -1)


def _columns(values: NDArray[_Number], tiles: int, groups: int) -> NDArray[_Number]:
    """``values [tiles · outputs, groups]`` as ``[tiles, groups, outputs]``."""
    return np.ascontiguousarray(values.reshape(tiles, OUTPUTS, groups).transpose(0, 2, 1))


def _zero_points(tensor: QTensor) -> Array:
    assert tensor.zero_point is not None
    return tensor.zero_point.numpy()


def _by_group(values: Array, layout: TileLayout) -> Array:
    """``values [rows, groups of the scheme]`` for the stored groups."""
    repeats = layout.repeats or layout.groups
    return values if repeats == 1 else np.repeat(values, repeats, axis=1)
