"""A graph in float16: every float32 of it, from the weights to the cache and the logits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ....errors import CheckpointError
from ..graph_writer import Array

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def to_float16(model: ir.Model, read_per_token: dict[str, int]) -> None:
    """Change ``model`` in place: types, initializers and constants; casts between floats go.

    ``read_per_token`` are bytes by initializer and follow.
    """
    graph = model.graph
    for name, value in graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = _halved(value.const_value, name)
            read_per_token[name] = read_per_token.get(name, 0) // 2
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() in _FLOATS:
            ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            graph.remove(node, safe=True)
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for value in [*values, *(output for node in graph for output in node.outputs)]:
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _halved(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    def make() -> ir.Tensor:
        return ir.Tensor(_array(tensor.numpy(), name), dtype=ir.DataType.FLOAT16, name=name)

    return ir.LazyTensor(make, dtype=ir.DataType.FLOAT16, shape=ir.Shape(tensor.shape), name=name)


def _array(array: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).any() and not np.isinf(array).any():
        raise CheckpointError(
            f"{name} does not fit float16",
            why=f"its largest number is {float(np.abs(array).max()):.4g}, that of float16 is 65504",
            fix="export for a provider that computes in float32: --provider cpu or openvino",
        )
    return half
