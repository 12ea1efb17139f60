"""Other ways to compute the products of a prefill graph, made of the one that is shipped: for comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ....runtime.prepack.int8_weights import INT8_CODES, INT8_SCALES

_BLOCK, _ZERO = 256, 128
Weights = dict[str, NDArray[Any]]


def divided_rows(graph: Path, target: Path, weights: Weights) -> Weights:
    """``DynamicQuantizeMatMul``, which has one scale for a whole tensor, over rows that were divided by their
    own scale before and are multiplied by it after.
    """
    model = ir.load(graph)
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear":
            _replace(model.graph, node, ir.node("Div", node.inputs[:2], name=node.name))
        elif node.op_type == "MatMulIntegerToFloat":
            inputs = [node.inputs[0], node.inputs[1], node.inputs[3]]
            made = ir.node("DynamicQuantizeMatMul", inputs, domain="com.microsoft", name=node.name)
            _replace(model.graph, node, made)
    ir.save(model, target)
    return weights


def eight_bit_blocks(graph: Path, target: Path, weights: Weights) -> Weights:
    """``MatMulNBits`` over the same int8 weights in the widest blocks that its kernel has."""
    model = ir.load(graph)
    packed: Weights = {}
    for node in list(model.graph):
        if node.op_type != "MatMulIntegerToFloat":
            continue
        name = str(node.name)
        codes, scales = weights[name + INT8_CODES], weights[name + INT8_SCALES]
        columns, rows = codes.shape
        blocks = -(-columns // _BLOCK)
        unsigned = np.full((rows, blocks * _BLOCK), _ZERO, np.uint8)
        unsigned[:, :columns] = (codes.T.astype(np.int16) + _ZERO).astype(np.uint8)
        packed[name + INT8_CODES] = unsigned.reshape(rows, blocks, _BLOCK)
        packed[name + INT8_SCALES] = np.repeat(scales[:, None], blocks, axis=1)
        values = [_named(node.inputs[1]), _named(node.inputs[3])]
        for value in values:
            _reshape(value, packed[str(value.name)])
        quantized = node.inputs[0].producer()
        ((scaled, _),) = node.outputs[0].uses()
        size = {"N": rows, "K": columns, "bits": 8, "block_size": _BLOCK, "accuracy_level": 4}
        inputs = [quantized.inputs[0], *values]
        made = ir.node("MatMulNBits", inputs, size, domain="com.microsoft", name=name)
        _replace(model.graph, scaled, made)
        model.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)
    ir.save(model, target)
    return packed


def in_tiles(graph: Path, target: Path, weights: Weights) -> Weights:
    """Attention without sinks, which takes its scores in tiles."""
    from ....export.graph.attention.attention import without_sinks

    model = ir.load(graph)
    without_sinks(model)
    ir.save(model, target)
    return weights


VARIANTS = {"rows": divided_rows, "blocks": eight_bit_blocks, "tiles": in_tiles}


def _named(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _reshape(value: ir.Value, array: NDArray[Any]) -> None:
    """Let the initializer ``value``, whose numbers come later, be of the shape and type of ``array``."""
    old = value.const_value
    assert isinstance(old, ir.ExternalTensor)
    dtype = ir.DataType.UINT8 if array.dtype == np.uint8 else ir.DataType.FLOAT
    shape = ir.Shape(array.shape)
    value.const_value = ir.ExternalTensor(
        old.location, 0, array.nbytes, dtype, shape=shape, name=str(value.name), base_dir=old.base_dir
    )
    value.shape, value.type = shape, ir.TensorType(dtype)


def _replace(graph: ir.Graph, node: ir.Node, made: ir.Node) -> None:
    graph.insert_before(node, made)
    made.outputs[0].name = f"{node.outputs[0].name}.other"
    ir.convenience.replace_all_uses_with(node.outputs[0], made.outputs[0])
    graph.remove(node, safe=True)
