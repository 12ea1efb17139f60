"""From the graph that the builders make, which is the CPU's, to the form that a provider takes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ..attention.attention_kernel import without_sinks
from ..graph_writer import GraphWriter
from ..linear.qdq import INT2_OPSET, to_qdq
from .half import to_float16
from .providers import ProviderForm
from .standard import to_standard


def rewrite(model: ir.Model, graph: GraphWriter, form: ProviderForm) -> None:
    """Change ``model``, which ``graph`` made, in place; the sizes in ``graph`` follow.

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
