"""From the graph that the builders make, which is the CPU's, to the form that a provider takes: standard
operators, float16, or both.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....errors import CheckpointError
from ..attention.attention import without_sinks
from ..graph_writer import Array, GraphWriter
from .providers import ProviderForm
from .qdq import INT2_OPSET, to_qdq
from .standard import to_standard

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def rewrite(model: ir.Model, graph: GraphWriter, form: ProviderForm) -> None:
    """Rewrite ``model``, which came of ``graph``, in place; the sizes in ``graph`` follow.

    Raises:
        ShapeError: a weight whose blocks do not divide its inputs.
    """
    without_sinks(model)
    if form.linears == "qdq":
        to_qdq(model, graph.read_per_token)
        to_standard(model)
    if form.dtype == "float16":
        to_float16(model, graph.read_per_token)
    RemoveUnusedNodesPass()(model)
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    graph.nbytes = {name: tensor.nbytes for name, tensor in tensors.items() if tensor is not None}
    graph.read_per_token = {name: size for name, size in graph.read_per_token.items() if name in graph.nbytes}
    if any(
        tensor is not None and tensor.dtype in (ir.DataType.INT2, ir.DataType.UINT2)
        for tensor in tensors.values()
    ):
        model.graph.opset_imports[""] = INT2_OPSET.version
        model.ir_version = INT2_OPSET.ir_version


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
