"""Norms, alone or fused with the residual addition that precedes them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.anatomy import Norm
from .build import Build


def normalize(build: Build, value: ir.Value, norm: Norm) -> ir.Value:
    """``norm(value)`` over the last axis."""
    scale = _scale(build, norm)
    if norm.kind == "rms":
        return build.graph.node(
            "SimplifiedLayerNormalization", norm.name, [value, scale], axis=-1, epsilon=norm.eps, stash_type=1
        )
    bias = build.vector(f"{norm.name}.bias")
    return build.graph.node("LayerNormalization", norm.name, [value, scale, bias], axis=-1, epsilon=norm.eps)


def add_and_normalize(
    build: Build, value: ir.Value, skip: ir.Value, norm: Norm, bias: ir.Value | None = None
) -> tuple[ir.Value, ir.Value]:
    """``(norm(sum), sum)`` with ``sum = value + skip + bias``, in one node."""
    scale = _scale(build, norm)
    if norm.kind == "rms":
        op, inputs = "SkipSimplifiedLayerNormalization", [value, skip, scale, bias]
    else:
        op, inputs = "SkipLayerNormalization", [value, skip, scale, build.vector(f"{norm.name}.bias"), bias]
    if bias is None:
        inputs.pop()
    outputs = build.graph.contrib_outputs(op, norm.name, inputs, 4, epsilon=norm.eps)
    return outputs[0], outputs[3]


def _scale(build: Build, norm: Norm) -> ir.Value:
    """``offset + weight`` as one initializer."""
    name, weights = f"{norm.name}.weight", build.weights
    return build.graph.weight(
        name,
        ir.DataType.FLOAT,
        weights.shape(name),
        lambda: (weights.tensor(name).numpy() + norm.offset).astype(np.float32),
    )
