"""Norms, alone or with the residual addition that precedes them."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...compress.model.block_anatomy import Norm
from .build import Build
from .graph_writer import Array


def normalize(build: Build, value: ir.Value, norm: Norm) -> ir.Value:
    """``norm(value)`` over the last axis."""
    scale = _scale(build, norm)
    if norm.kind == "rms" and build.tiles:
        return build.graph.own("RootMeanSquareNorm", norm.name, [scale, value], 1, epsilon=float(norm.eps))[0]
    if norm.kind == "rms":
        return build.graph.node(
            "SimplifiedLayerNormalization", norm.name, [value, scale], axis=-1, epsilon=norm.eps, stash_type=1
        )
    inputs = [value, scale, *([_part(build, norm, "bias")] if norm.bias else [])]
    return build.graph.node("LayerNormalization", norm.name, inputs, axis=-1, epsilon=norm.eps)


def add_and_normalize(
    build: Build, value: ir.Value, skip: ir.Value, norm: Norm, bias: ir.Value | None = None
) -> tuple[ir.Value, ir.Value]:
    """``(norm(sum), sum)`` with ``sum = value + skip + bias``.

    Root mean square norms have a node for both, edgepress's own where its operators are written. For
    LayerNorm ONNX Runtime's node is scalar code, 5 ns a value where the two nodes here take 0.9. ``Sum`` and
    not ``Add``, which ONNX Runtime would fuse into the slow one.
    """
    parts = [value, skip] if bias is None else [value, skip, bias]
    if norm.kind != "rms":
        total = build.graph.node("Sum", f"{norm.name}.sum", parts)
        return normalize(build, total, norm), total
    scale = _scale(build, norm)
    if build.tiles:
        inputs, epsilon = [scale, *parts], float(norm.eps)
        return build.graph.own("SumRootMeanSquareNorm", norm.name, inputs, 2, epsilon=epsilon)
    inputs = [value, skip, scale, *parts[2:]]
    outputs = build.graph.contrib_outputs(
        "SkipSimplifiedLayerNormalization", norm.name, inputs, 4, epsilon=norm.eps
    )
    return outputs[0], outputs[3]


def normalize_sum(build: Build, parts: Sequence[ir.Value], norm: Norm) -> ir.Value:
    """The LayerNorm of a sum of one to three, by edgepress's own operator: the second and third have the
    shape of the first, or its last axis alone.
    """
    inputs = [*layer_norm_parts(build, norm), *parts]
    return build.graph.own("SumNorm", norm.name, inputs, 1, epsilon=float(norm.eps))[0]


def layer_norm_parts(build: Build, norm: Norm) -> tuple[ir.Value, ir.Value]:
    """Scale and bias of a LayerNorm, each ``[hidden]``."""
    return _scale(build, norm), _part(build, norm, "bias")


def _scale(build: Build, norm: Norm) -> ir.Value:
    """``offset + weight`` as one initializer."""
    return _part(build, norm, "weight", norm.offset)


def _part(build: Build, norm: Norm, part: str, offset: float = 0.0) -> ir.Value:
    name, weights = f"{norm.name}.{part}", build.weights

    def make() -> Array:
        return (weights.tensor(name).numpy() + offset).astype(np.float32)

    return build.graph.weight(name, ir.DataType.FLOAT, weights.shape(name), make)
