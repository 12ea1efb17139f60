"""W8A8 linears as edgepress's own ``IntegerProduct``: activations are rounded within it, as :mod:`.integer`
rounds them, and what follows (an activation function, or a residual and its norm) is part of it.

The codes lie in tiles of 16 outputs, in the order in which a processor reads them: lines of 64 bytes, four
inputs for each output, as ``runtime/kernels/src/encoder.h`` says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Linear, Norm
from ....compress.numbers.scheme import Scheme
from ....errors import ShapeError
from ..build import Build
from ..graph_writer import Array
from ..norm import layer_norm_parts
from .tiles import OUTPUTS, Bytes

# Activation functions that the operator computes, by their names in configs, and the operator's numbers.
ACTIVATIONS = {
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "gelu_fast": 2,
    "gelu_accurate": 2,
    "relu": 3,
}
_INPUTS = 4  # of an output, side by side in a line
# A sum of so many products of codes fits 32 bits.
_MOST_INPUTS = 1 << 16


@dataclass(frozen=True)
class Residual:
    """What is added to a product, and the norm of the sum."""

    value: ir.Value
    norm: Norm


def integer_tiled(build: Build, linear: str) -> bool:
    """Whether the product of ``linear`` is one of ours: weights and activations are 8-bit codes."""
    scheme = build.weights.scheme(linear)
    return build.tiles and scheme is not None and bool(scheme.activations)


def integer_tile_product(
    build: Build,
    value: ir.Value,
    linears: Sequence[Linear],
    scheme: Scheme,
    name: str,
    bias: ir.Value | None,
    *,
    activation: str | None = None,
    residual: Residual | None = None,
) -> ir.Value:
    """``activation(value · concat(weights)ᵀ + bias)``, or the norm of that and ``residual``."""
    graph, weights = build.graph, build.weights
    width, columns = sum(linear.out_features for linear in linears), linears[0].in_features
    if columns > _MOST_INPUTS:
        raise ShapeError(
            f"{linears[0].name}: {columns} inputs, of which an integer product takes {_MOST_INPUTS}",
            fix="export with --for standard",
        )
    lines = -(-width // OUTPUTS) * -(-columns // _INPUTS)

    def joined(part: str) -> Array:
        return np.concatenate([getattr(weights.quantized(linear.name), part).numpy() for linear in linears])

    def column(part: str, dtype: ir.DataType) -> ir.Value:
        def make() -> Array:
            values = joined(part)[:, 0]
            return values.astype(np.float32) if dtype == ir.DataType.FLOAT else unsigned(values)

        return graph.weight(f"{name}.{part}s", dtype, [width], make)

    tiles = graph.weight(
        f"{name}.tiles",
        ir.DataType.UINT8,
        [lines * OUTPUTS * _INPUTS],
        lambda: pack_lines(unsigned(joined("codes"))),
    )
    inputs = [value, tiles, column("scale", ir.DataType.FLOAT)]
    inputs += [None if scheme.symmetric else column("zero_point", ir.DataType.UINT8), bias]
    epsilon = 0.0
    if residual is not None:
        inputs += [residual.value, *layer_norm_parts(build, residual.norm)]
        epsilon = float(residual.norm.eps)
    while inputs[-1] is None:
        inputs.pop()
    return graph.own(
        "IntegerProduct",
        name,
        inputs,
        1,
        N=width,
        K=columns,
        activation=ACTIVATIONS.get(activation or "", 0),
        input_scale=_input_scale(build, linears) if scheme.calibrated else 0.0,
        epsilon=epsilon,
        exact=0,
    )[0]


def unsigned(codes: Array) -> Bytes:
    """Signed codes as the operator stores them: 128 more."""
    return np.ascontiguousarray(codes).view(np.uint8) + np.uint8(128)


def pack_lines(codes: Bytes) -> Bytes:
    """Tiles ``[bytes]`` of unsigned ``codes [rows, columns]``."""
    rows, columns = codes.shape
    tiles, quads = -(-rows // OUTPUTS), -(-columns // _INPUTS)
    filled = np.full((tiles * OUTPUTS, quads * _INPUTS), 128, np.uint8)
    filled[:rows, :columns] = codes
    return filled.reshape(tiles, OUTPUTS, quads, _INPUTS).transpose(0, 2, 1, 3).reshape(-1)


def _input_scale(build: Build, linears: Sequence[Linear]) -> float:
    found = {build.weights.quantized(linear.name).input_scale for linear in linears}
    scale = found.pop()
    if found or scale is None:
        raise ShapeError(
            f"{linears[0].name} and those that read the same inputs differ in their input scales",
            fix="compress with one pass for all of them",
        )
    return float(scale)
