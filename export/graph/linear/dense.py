"""Linears in float32: one product with the weights as they are stored, ``[out, in]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Linear
from ..build import Build
from ..graph_writer import Array


def dense_product(
    build: Build, value: ir.Value, linears: Sequence[Linear], name: str, bias: ir.Value | None
) -> ir.Value:
    """``value · concat(weights)ᵀ + bias``."""

    def make() -> Array:
        return np.concatenate([build.weights.tensor(f"{linear.name}.weight").numpy() for linear in linears])

    width = sum(linear.out_features for linear in linears)
    weight = build.graph.weight(f"{name}.weight", ir.DataType.FLOAT, [width, linears[0].in_features], make)
    product = transposed_product(build, value, weight, name)
    return product if bias is None else build.graph.node("Add", f"{name}.add_bias", [product, bias])


def transposed_product(build: Build, value: ir.Value, weight: ir.Value, name: str) -> ir.Value:
    """``value · weightᵀ`` without a transposed copy of the weight, so that a tied one can stay a single
    initializer.
    """
    return build.graph.contrib("FusedMatMul", name, [value, weight], transA=0, transB=1, alpha=1.0)
