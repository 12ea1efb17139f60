"""The nodes that make one vector of a sentence's token states: mean or first token, unit length or not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.model.pooling import Pooling
from .graph_writer import GraphWriter

_SMALLEST_NORM = np.float32(1e-12)


def sentence_embedding(graph: GraphWriter, hidden: ir.Value, mask: ir.Value, pooling: Pooling) -> ir.Value:
    """``[batch, hidden]`` from states ``[batch, seq, hidden]`` and the mask of tokens ``[batch, seq]``."""
    axis = graph.constant("pooling.axis", np.array([1], np.int64))
    if pooling.mode == "cls":
        first = graph.constant("pooling.first", np.array(0, np.int64))
        pooled = graph.node("Gather", "pooling.cls", [hidden, first], axis=1)
    else:
        pooled = _masked_mean(graph, hidden, mask, axis)
    if not pooling.normalize:
        return pooled
    length = graph.node("ReduceL2", "pooling.length", [pooled, axis], keepdims=1)
    floor = graph.constant("pooling.floor", np.array(_SMALLEST_NORM))
    return graph.node("Div", "pooling.unit", [pooled, graph.node("Max", "pooling.divisor", [length, floor])])


def _masked_mean(graph: GraphWriter, hidden: ir.Value, mask: ir.Value, axis: ir.Value) -> ir.Value:
    weights = graph.node("Cast", "pooling.mask", [mask], to=ir.DataType.FLOAT)
    row = graph.node("Unsqueeze", "pooling.row", [weights, axis])
    total = graph.node("Squeeze", "pooling.sum", [graph.node("MatMul", "pooling.total", [row, hidden]), axis])
    count = graph.node("ReduceSum", "pooling.count", [weights, axis], keepdims=1)
    one = graph.constant("pooling.one", np.array(1, np.float32))  # a row without tokens is zero, not NaN
    return graph.node("Div", "pooling.mean", [total, graph.node("Max", "pooling.tokens", [count, one])])
