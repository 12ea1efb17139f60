"""The graphs that a proof needs beside the one it publishes: the float twin, and the one with exact
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor

from ...runtime.session.session import open_session
from ...terminal import Silent
from ..graph.attention.cache_io import CODE_ATTRIBUTES, SCALES_AT
from ..graph.build import WeightView
from ..graph.graph_writer import Opset
from ..graph.whole_graph import build_graph, save_graph
from ..job import ExportJob

# Accuracy level of MatMulNBits, written or left by fusion, that computes in float32, slowly.
_EXACT = 0
# Our own attention; over other caches than float32 its name ends in their bits.
_ATTENTION = "CachedAttention"
_CONFIG = {
    "session.qdq_matmulnbits_accuracy_level": str(_EXACT),
    # No integer product is left, and the rewriting that protects them mishandles weights without zero points.
    "session.x64quantprecision": "0",
}


def write_float_graph(
    job: ExportJob, directory: Path, opset: Opset, read: Callable[[str], Tensor] | None = None
) -> Path:
    """Write the checkpoint's graph with every weight dequantized, as ``read`` has it in memory; returns its
    path.
    """
    built = build_graph(WeightView(job.source, as_float=True, read=read), opset, job.pooling)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "float.onnx"
    with Silent().task("", built.nbytes) as task:
        save_graph(built.model, path, built.nbytes, task)
    return path


@contextmanager
def exact_session(graph: Path) -> Iterator[Any]:
    """A session over ``graph`` with its stored weights, activations that are never rounded, and a cache in
    float32.

    The changed graph lies beside the original while the context lasts, since the two read the same weights.
    """
    path = graph.with_name("exact.onnx")
    model = ir.load(graph)
    for node in list(model.graph):
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _EXACT)
        elif node.op_type in ("QuantizedProduct", "IntegerProduct", "EncoderAttention"):
            node.attributes["exact"] = ir.AttrInt64("exact", 1)
        elif node.op_type == "MatMulIntegerToFloat":
            _in_float(model.graph, node)
        elif node.op_type == "GroupQueryAttention" or node.op_type.startswith(_ATTENTION):
            _without_codes(node)
        elif node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    try:
        ir.save(model, path)
        yield open_session(path, config=_CONFIG)
    finally:
        path.unlink(missing_ok=True)


def _without_codes(attention: ir.Node) -> None:
    """Let attention cache keys and values as they are."""
    if attention.op_type.startswith(_ATTENTION):
        attention.op_type = _ATTENTION
    for name in CODE_ATTRIBUTES:
        attention.attributes.pop(name, None)
    attention.resize_inputs(min(len(attention.inputs), SCALES_AT))
    caches = [*attention.inputs[3:5], *attention.outputs[1:3]]
    for value in caches:
        assert value is not None and value.shape is not None
        packed = value.dtype == ir.DataType.UINT8
        width = value.shape[3]
        assert isinstance(width, int)
        value.shape = ir.Shape([*value.shape[:3], width * 2 if packed else width])
        value.dtype = ir.DataType.FLOAT


def _in_float(graph: ir.Graph, integer: ir.Node) -> None:
    """Replace an integer product, and its token scale where that is not static, by ``activations ·
    dequantized weights``.
    """
    rounding = integer.inputs[0].producer()
    replaced = [integer]
    if integer.inputs[2] is not rounding.inputs[1]:
        ((scaled, _),) = integer.outputs[0].uses()
        replaced.insert(0, scaled)
    zero_points = integer.inputs[5:6]
    weights = ir.node("DequantizeLinear", [integer.inputs[1], integer.inputs[3], *zero_points], {"axis": 1})
    product = ir.node("MatMul", [rounding.inputs[0], weights.outputs[0]])
    graph.insert_before(integer, [weights, product])
    ir.convenience.replace_all_uses_with(replaced[0].outputs[0], product.outputs[0])
    graph.remove(replaced, safe=True)
