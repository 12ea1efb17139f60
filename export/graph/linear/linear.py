"""How linears become nodes: those that read the same input are packed into one matrix product.

Packing needs one storage for all: neighbours of the same scheme become one product, others are computed one
by one and concatenated.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Linear
from ....compress.numbers.scheme import WORD_SIDE, Scheme
from ..build import Build
from ..graph_writer import Array
from .integer import integer_product
from .integer_tiles import integer_tile_product
from .nbits import nbits_product
from .tiles import tile_product, tiled


def project(build: Build, value: ir.Value, linears: Sequence[Linear], name: str) -> ir.Value:
    """``concat(linear(value) for linear in linears)`` over the last axis, biases included."""
    return _product(build, value, linears, name, with_bias=True)


def project_without_bias(
    build: Build, value: ir.Value, linears: Sequence[Linear], name: str
) -> tuple[ir.Value, ir.Value | None]:
    """As :func:`project`, the bias handed back: for the nodes that can add it on their way."""
    return _product(build, value, linears, name, with_bias=False), packed_bias(build, linears, name)


def project_apart(
    build: Build, value: ir.Value, linears: Sequence[Linear], name: str, split: str
) -> tuple[ir.Value, ...]:
    """As :func:`project`, one value for each of ``linears``.

    One product is taken apart again by the node ``split``, which copies it. Integer products share the codes
    of their input whether they are packed or not, and packing float ones saves less than the copy costs (2 %
    of a prompt of 128 tokens): those stay apart.
    """
    schemes = [build.weights.scheme(linear.name) for linear in linears]
    if all(scheme is None or scheme.activations for scheme in schemes):
        return tuple(project(build, value, [linear], linear.name) for linear in linears)
    packed = project(build, value, linears, name)
    return build.graph.split(split, packed, [linear.out_features for linear in linears])


def packed_bias(build: Build, linears: Sequence[Linear], name: str) -> ir.Value | None:
    """The biases of ``linears`` in a row, zeros where one has none; None when none has."""
    if not any(linear.bias for linear in linears):
        return None

    def make() -> Array:
        parts = [
            build.weights.tensor(f"{linear.name}.bias").numpy()
            if linear.bias
            else np.zeros(linear.out_features, np.float32)
            for linear in linears
        ]
        return np.concatenate(parts).astype(np.float32)

    width = sum(linear.out_features for linear in linears)
    return build.graph.weight(f"{name}.bias", ir.DataType.FLOAT, [width], make)


def dense_product(
    build: Build, value: ir.Value, linears: Sequence[Linear], name: str, bias: ir.Value | None
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias``."""

    def make() -> Array:
        parts = [build.weights.tensor(f"{linear.name}.weight").numpy() for linear in linears]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)  # a copy of a large one is large

    width = sum(linear.out_features for linear in linears)
    weight = build.graph.weight(f"{name}.weight", ir.DataType.FLOAT, [width, linears[0].in_features], make)
    product = transposed_product(build, value, weight, name)
    return product if bias is None else build.graph.node("Add", f"{name}.add_bias", [product, bias])


def transposed_product(build: Build, value: ir.Value, weight: ir.Value, name: str) -> ir.Value:
    """``value · weightᵀ`` without a transposed copy of the weight, so that a tied one can stay a single
    initializer.
    """
    return build.graph.contrib("FusedMatMul", name, [value, weight], transA=0, transB=1, alpha=1.0)


def _runs(build: Build, linears: Sequence[Linear], name: str) -> list[tuple[list[Linear], str]]:
    """Neighbours of one storage, each with the name of their product; a trellis' words are of one linear."""

    def storage(linear: Linear) -> tuple[Scheme | None, str]:
        scheme = build.weights.scheme(linear.name)
        apart = scheme is not None and scheme.of_trellis and linear.out_features % WORD_SIDE
        return scheme, linear.name if apart else ""

    runs = [list(run) for _, run in groupby(linears, key=storage)]
    if len(runs) == 1:
        return [(runs[0], name)]
    return [(run, f"{name}.{'_'.join(linear.role for linear in run)}") for run in runs]


def _product(
    build: Build, value: ir.Value, linears: Sequence[Linear], name: str, *, with_bias: bool
) -> ir.Value:
    parts = []
    for run, label in _runs(build, linears, name):
        scheme = build.weights.scheme(run[0].name)
        bias = packed_bias(build, run, label) if with_bias else None
        if scheme is None:
            parts.append(dense_product(build, value, run, label, bias))
        elif scheme.activations and build.tiles:
            parts.append(integer_tile_product(build, value, run, scheme, label, bias))
        elif scheme.activations:
            parts.append(integer_product(build, value, run, scheme, label, bias))
        elif tiled(build, run[0].name):
            parts.append(tile_product(build, value, run, scheme, label, bias))
        else:
            parts.append(nbits_product(build, value, run, scheme, label, bias))
    return parts[0] if len(parts) == 1 else build.graph.node("Concat", name, parts, axis=-1)
