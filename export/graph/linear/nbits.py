"""Weight-only quantized linears: one ``MatMulNBits`` over packed codes of 2, 4 or 8 bits.

The kernel knows blocks of 16, 32, 64, 128 and 256 inputs; at 2 bits only 32, 64 and 128 are fast. Any other
group is held by smaller blocks that repeat its scale, 3-bit codes by 4-bit ones, and those of 5 and 6 bits by
8-bit ones: the numbers stay the same, only the bytes grow.

Codes become unsigned by adding half the range, are cut into blocks, and several share a byte, the first in
the lowest bits. Zero points are packed the same way along the blocks of one output. Scales are float32.
``GatherBlockQuantized``, which looks up embeddings, reads the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError
from ..build import Build
from ..graph_writer import Array

# Widths that the kernel has none of its own for.
_STORED_IN = {3: 4, 5: 8, 6: 8}
# Blocks with a native int8 kernel, largest first: fewer scales are fewer bytes.
NATIVE_BLOCKS = {2: (128, 64, 32), 4: (256, 128, 64, 32, 16), 8: (256, 128, 64, 32, 16)}
# Accuracy levels of MatMulNBits, by what it computes on.
_ON_FLOAT32, _ON_INT8 = 0, 4
Bytes = NDArray[np.uint8]


def nbits_product(
    build: Build,
    value: ir.Value,
    linears: Sequence[Linear],
    scheme: Scheme,
    name: str,
    bias: ir.Value | None,
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias``."""
    layout = layout_of(scheme, linears[0].in_features, linears[0].name)
    note = layout.note(scheme)
    if note is not None:
        build.notes.add(note)
    width = sum(linear.out_features for linear in linears)

    def read() -> list[QTensor]:
        return [build.weights.quantized(linear.name) for linear in linears]

    packed = packed_weight(build, read, scheme, layout, name, width)
    return nbits_node(build, value, packed, layout, name, (width, linears[0].in_features), bias)


def packed_weight(
    build: Build,
    read: Callable[[], Sequence[QTensor]],
    scheme: Scheme,
    layout: Layout,
    name: str,
    width: int,
) -> list[ir.Value]:
    """Initializers ``[codes, scales]`` or ``[codes, scales, zero points]`` of the matrices that ``read``
    returns.
    """

    def concatenated(pack: Callable[[QTensor, Layout], Array]) -> Callable[[], Array]:
        return lambda: np.concatenate([pack(tensor, layout) for tensor in read()])

    graph, blocks = build.graph, layout.blocks
    codes_shape = [width, blocks, layout.blob]
    packed = [
        graph.weight(f"{name}.codes", ir.DataType.UINT8, codes_shape, concatenated(pack_codes)),
        graph.weight(f"{name}.scales", ir.DataType.FLOAT, [width, blocks], concatenated(pack_scales)),
    ]
    if not scheme.symmetric:
        zeros_shape = [width, layout.zero_point_bytes]
        zeros = concatenated(pack_zero_points)
        packed.append(graph.weight(f"{name}.zero_points", ir.DataType.UINT8, zeros_shape, zeros))
    return packed


def nbits_node(
    build: Build,
    value: ir.Value,
    packed: Sequence[ir.Value],
    layout: Layout,
    name: str,
    shape: tuple[int, int],
    bias: ir.Value | None = None,
) -> ir.Value:
    """The ``MatMulNBits`` node for a packed weight of logical ``shape`` ``(out, in)``."""
    inputs: list[ir.Value | None] = [value, *packed]
    if bias is not None:
        inputs += [None] * (5 - len(inputs)) + [bias]
    return build.graph.contrib(
        "MatMulNBits",
        name,
        inputs,
        N=shape[0],
        K=shape[1],
        bits=layout.bits,
        block_size=layout.block,
        accuracy_level=_ON_FLOAT32 if build.exact else _ON_INT8,
    )


@dataclass(frozen=True)
class Layout:
    """Storage of a ``[out, in]`` matrix.

    Attributes:
        bits: stored bits per code.
        block: inputs per stored scale.
        blocks: stored scales per output, the last of which may reach beyond ``in_features``.
        repeats: stored blocks that share one scale of the scheme.
    """

    bits: int
    block: int
    blocks: int
    repeats: int

    @property
    def zero(self) -> int:
        """What is added to a signed code to store it; also the stored zero point of a symmetric scheme."""
        return 1 << (self.bits - 1)

    @property
    def blob(self) -> int:
        """Bytes of the codes of one block."""
        return self.block * self.bits // 8

    @property
    def zero_point_bytes(self) -> int:
        """Bytes of the packed zero points of one output."""
        return -(-self.blocks * self.bits // 8)

    def note(self, scheme: Scheme) -> str | None:
        """How the storage differs from the scheme, or None when it does not."""
        parts = []
        if self.bits != scheme.bits:
            parts.append(f"{scheme.bits}-bit codes are stored in {self.bits} bits")
        if scheme.group_size is not None and self.block != scheme.group_size:
            parts.append(
                f"each group of {scheme.group_size} is stored as {self.repeats} blocks of {self.block}"
            )
        return f"{scheme.name}: {', '.join(parts)} (no native kernel for it as it is)" if parts else None


def layout_of(scheme: Scheme, in_features: int, name: str) -> Layout:
    """The storage for ``scheme`` over ``in_features`` inputs; ``name`` is the layer that errors name."""
    group = scheme.group_size or in_features
    if in_features % group:
        raise ShapeError(
            f"{name}: its {in_features} inputs are not a multiple of the group size {group}",
            fix="choose a group size that divides them, or null for one scale per channel",
        )
    wanted = _STORED_IN.get(scheme.bits, scheme.bits)
    for bits in (wanted, 4) if wanted == 2 else (wanted,):
        block = _dividing_block(bits, group)
        if block is None and scheme.group_size is None:
            block = _covering_block(bits, in_features)
        if block is not None:
            blocks = -(-in_features // block)
            return Layout(bits, block, blocks, blocks * group // in_features if scheme.group_size else blocks)
    raise ShapeError(
        f"{name}: ONNX Runtime has no block size for groups of {group}",
        why="its blocks are powers of two from 16 to 256, and a group must be a multiple of one",
        fix="compress with a group size that is a multiple of 16",
    )


def _dividing_block(bits: int, group: int) -> int | None:
    return next((block for block in NATIVE_BLOCKS[bits] if group % block == 0), None)


def _covering_block(bits: int, in_features: int) -> int:
    # One scale per channel may run past the last input, so any block will do: the largest that is not mostly
    # padding.
    native = NATIVE_BLOCKS[bits]
    return next((block for block in native if block <= in_features), native[-1])


def packed(values: Bytes, bits: int) -> Bytes:
    """Pack the last axis, whose length fills whole bytes."""
    per_byte = 8 // bits
    packed = values[..., ::per_byte].copy()
    for position in range(1, per_byte):
        packed |= values[..., position::per_byte] << (bits * position)
    return packed


def _padded(values: Bytes, length: int, fill: int) -> Bytes:
    missing = length - values.shape[-1]
    return np.pad(values, [(0, 0), (0, missing)], constant_values=fill) if missing else values


def _unsigned(values: NDArray[np.int8], zero: int) -> Bytes:
    # Modulo 256 the view is the two's complement, so that -128 + 128 is 0 without a wider type.
    return np.ascontiguousarray(values).view(np.uint8) + np.uint8(zero)


def pack_codes(tensor: QTensor, layout: Layout) -> Bytes:
    """``[out, blocks, bytes per block]``; inputs beyond the last one hold the zero code."""
    codes = _padded(_unsigned(tensor.codes.numpy(), layout.zero), layout.blocks * layout.block, layout.zero)
    return packed(codes, layout.bits).reshape(codes.shape[0], layout.blocks, layout.blob)


def pack_scales(tensor: QTensor, layout: Layout) -> NDArray[Any]:
    """``[out, blocks]`` float32."""
    scale = tensor.scale.numpy().astype(np.float32, copy=False)
    return scale if layout.repeats == 1 else np.repeat(scale, layout.repeats, axis=1)


def pack_zero_points(tensor: QTensor, layout: Layout) -> Bytes:
    """``[out, bytes]`` of an asymmetric tensor."""
    assert tensor.zero_point is not None
    zeros = np.repeat(_unsigned(tensor.zero_point.numpy(), layout.zero), layout.repeats, axis=1)
    return packed(_padded(zeros, layout.zero_point_bytes * 8 // layout.bits, 0), layout.bits)
