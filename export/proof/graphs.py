"""The graphs that a proof needs beside the one it publishes: the float twin, the one with exact arithmetic,
and each part of any of them alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...runtime.bundle.graph_contract import is_past, present_of
from ...runtime.bundle.graph_file import EITHER
from ...runtime.session.session import open_session
from ..graph.attention.cache_io import CODE_ATTRIBUTES, FLOAT, SCALES_AT
from ..graph.build import GraphPart, WeightView
from ..graph.encoder_decoder_graph import Stack
from ..graph.graph_writer import Opset
from ..graph.whole_graph import build_graph
from ..job import ExportJob

# Accuracy level of MatMulNBits, written or left by fusion, that computes in float32, slowly.
_EXACT = 0
# Our own attention; over other caches than float32 its name ends in their bits.
_ATTENTION = "CachedAttention"
# Further settings of a session over such a graph.
EXACT = {
    "session.qdq_matmulnbits_accuracy_level": str(_EXACT),
    # No integer product is left, and the rewriting that protects them mishandles weights without zero points.
    "session.x64quantprecision": "0",
}


def with_float_caches(job: ExportJob, graph: Path, opset: Opset, stack: Stack) -> ir.Model:
    """``graph``, that of a ``stack`` of an encoder–decoder, with the weights that lie beside it and caches in
    float32.
    """
    shipped = ir.load(graph)
    if job.kv_dtype == FLOAT:
        return shipped
    model = build_graph(WeightView(job.source), opset, None, job.form, stack).model
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.LazyTensor):
            value.const_value = shipped.graph.initializers[name].const_value
    return model


@contextmanager
def session_over(model: ir.Model, directory: Path, config: Mapping[str, str] | None = None) -> Iterator[Any]:
    """A session over ``model``, whose stored weights lie in ``directory``; so does the graph's file, for as
    long as the context lasts.
    """
    path = directory / "part.onnx"
    try:
        ir.save(model, path)
        yield open_session(path, config=config)
    finally:
        path.unlink(missing_ok=True)


def exact_model(model: ir.Model) -> ir.Model:
    """``model``, changed so that activations are never rounded, and a decoder's cache is in float32."""
    _take_signed_products(model.graph)
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _EXACT)
        elif node.op_type in ("QuantizedProduct", "RoutedProduct", "IntegerProduct", "EncoderAttention"):
            node.attributes["exact"] = ir.AttrInt64("exact", 1)
        elif node.op_type == "MatMulIntegerToFloat":
            _in_float(model.graph, node)
        elif node.op_type == "GroupQueryAttention" or node.op_type.startswith(_ATTENTION):
            _without_codes(node)
        elif node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
    return model


def cut(model: ir.Model, part: GraphPart) -> tuple[ir.Model, dict[str, ir.LazyTensor]]:
    """The nodes of ``part`` alone, with the same weights; of a graph that was not written yet these are
    inputs, and come back by name.

    What every part reads (lengths, angles, the type of the cache) comes with it, as do its keys and values.
    """
    graph = model.graph
    reached = _reached(graph, part.inputs, part.outputs)
    extended = {
        present_of(str(one.name)) for one in graph.inputs if one in reached and is_past(str(one.name))
    }
    # Of a cache that is there for its size alone, another part's, nothing follows from what this part reads.
    kept = [
        one
        for one in graph.outputs
        if one.name in extended - {*part.outputs} and _follows(graph, part.inputs, one)
    ]
    reached |= _reached(graph, part.inputs, [str(one.name) for one in kept])
    entered = [one for one in graph.inputs if one in reached and one.name not in part.inputs]
    alone = ir.convenience.extract(graph, [*part.inputs, *entered], [*part.outputs, *kept])
    for value in (*alone.inputs, *alone.outputs):
        if value.type is None:  # between two parts
            value.type = ir.TensorType(ir.DataType.FLOAT)
    unwritten = {}
    for name, value in list(alone.initializers.items()):
        if isinstance(value.const_value, ir.LazyTensor):
            unwritten[name] = value.const_value
            del alone.initializers[name]
            value.const_value, value.shape = None, ir.Shape([None] * len(value.shape or ()))
            alone.inputs.append(value)
    return ir.Model(alone, ir_version=model.ir_version, producer_name=model.producer_name), unwritten


def _reached(graph: ir.Graph, inputs: Sequence[str], outputs: Sequence[str]) -> set[ir.Value]:
    """The values that ``outputs`` are computed from, ``outputs`` included, no further than ``inputs``."""
    values = ir.convenience.create_value_mapping(graph)
    pending, found = [values[name] for name in outputs], set()
    while pending:
        value = pending.pop()
        if value in found or value.name in inputs:
            continue
        found.add(value)
        pending += _read(graph, value)
    return found


def _follows(graph: ir.Graph, inputs: Sequence[str], output: ir.Value) -> bool:
    """Whether ``output`` is computed from one of ``inputs``."""
    reached = _reached(graph, inputs, [str(output.name)])
    return any(read.name in inputs for value in reached for read in _read(graph, value))


def _read(graph: ir.Graph, value: ir.Value) -> list[ir.Value]:
    """The values of ``graph`` that the node of ``value`` reads, those within its branches among them."""
    node = value.producer()
    if node is None:
        return []
    found = [one for one in node.inputs if one is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
                found += [one for one in inner.inputs if one is not None and one.graph is graph]
    return found


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


def _take_signed_products(whole: ir.Graph) -> None:
    """Of a choice between two forms of a product keep the first, whose weights are stored as they are."""
    for choice in list(ir.traversal.RecursiveGraphIterator(whole)):
        if choice.op_type != "If" or EITHER not in str(choice.name).split("."):
            continue
        branch, graph = choice.attributes["then_branch"].as_graph(), choice.graph
        assert graph is not None
        product, made = branch[0], choice.outputs[0]
        branch.outputs.clear()
        branch.remove(product)
        graph.insert_before(choice, product)
        ir.convenience.replace_all_uses_with(made, product.outputs[0], replace_graph_outputs=True)
        graph.remove(choice, safe=True)


def _in_float(whole: ir.Graph, integer: ir.Node) -> None:
    """Replace an integer product, and its token scale where that is not static, by ``activations ·
    dequantized weights``. The weights are those of the ``whole`` graph: ONNX Runtime 1.32 fuses a
    ``DequantizeLinear`` of a branch without finding what lies outside it.
    """
    rounding = integer.inputs[0].producer()
    replaced = [integer]
    if integer.inputs[2] is not rounding.inputs[1]:
        ((scaled, _),) = integer.outputs[0].uses()
        replaced.insert(0, scaled)
    zero_points = integer.inputs[5:6]
    weights = ir.node("DequantizeLinear", [integer.inputs[1], integer.inputs[3], *zero_points], {"axis": 1})
    product = ir.node("MatMul", [rounding.inputs[0], weights.outputs[0]])
    for node, suffix in ((weights, "dequantized"), (product, "in_float")):
        node.outputs[0].name = f"{integer.name}.{suffix}"  # other than any of a branch
    graph = integer.graph
    assert graph is not None
    whole.insert_before(integer if graph is whole else whole[0], weights)
    graph.insert_before(integer, product)
    ir.convenience.replace_all_uses_with(replaced[0].outputs[0], product.outputs[0])
    graph.remove(replaced, safe=True)
