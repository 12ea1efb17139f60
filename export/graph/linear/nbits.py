"""Weight-only quantized linears: one ``MatMulNBits`` over codes of 2, 4 or 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.qtensor import QTensor
from ....compress.numbers.scheme import Scheme
from ..build import Build
from ..graph_writer import Array
from .layout import Layout, layout_of
from .pack import pack_codes, pack_scales, pack_zero_points


def nbits_product(
    build: Build,
    value: ir.Value,
    linears: Sequence[Linear],
    scheme: Scheme,
    name: str,
    bias: ir.Value | None,
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias``.

    Raises:
        ShapeError: the scheme does not fit the shape; names the layer.
    """
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

    def joined(pack: Callable[[QTensor, Layout], Array]) -> Callable[[], Array]:
        return lambda: np.concatenate([pack(tensor, layout) for tensor in read()])

    graph, blocks = build.graph, layout.blocks
    codes_shape = [width, blocks, layout.blob]
    packed = [
        graph.weight(f"{name}.codes", ir.DataType.UINT8, codes_shape, joined(pack_codes)),
        graph.weight(f"{name}.scales", ir.DataType.FLOAT, [width, blocks], joined(pack_scales)),
    ]
    if not scheme.symmetric:
        zeros_shape = [width, layout.zero_point_bytes]
        zeros = joined(pack_zero_points)
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
        accuracy_level=build.accuracy_level,
    )
