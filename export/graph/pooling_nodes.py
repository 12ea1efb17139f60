"""A text's vector of its tokens' values: that of its first token, of its last that is no padding, or the mean
of all; as it is or of length 1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...compress.model.pooling import Mode
from .graph_writer import GraphWriter

_SMALLEST_NORM = np.float32(1e-12)


def pool(graph: GraphWriter, values: ir.Value, mask: ir.Value | None, mode: Mode) -> ir.Value:
    """``[batch, size]`` of ``values [batch, seq, size]`` by the tokens that ``mask [batch, seq]`` marks; of
    images all are.
    """
    if mode == "cls":
        first = graph.constant("pooling.first", np.array(0, np.int64))
        return graph.node("Gather", "pooling.cls", [values, first], axis=1)
    if mode == "last":
        assert mask is not None, "an image has no last token"
        mask = _last(graph, mask)
    return _mean(graph, values, mask)


def unit(graph: GraphWriter, vectors: ir.Value) -> ir.Value:
    """``vectors [batch, size]``, each of length 1."""
    length = graph.node("ReduceL2", "pooling.length", [vectors, tokens_axis(graph)], keepdims=1)
    floor = graph.constant("pooling.floor", np.array(_SMALLEST_NORM))
    return graph.node("Div", "pooling.unit", [vectors, graph.node("Max", "pooling.divisor", [length, floor])])


def _last(graph: GraphWriter, mask: ir.Value) -> ir.Value:
    """The last token of each row alone, on whatever side padding is: that behind which none is counted."""
    one = graph.constant("pooling.last.one", np.array(1, np.int64))
    counted = graph.node("CumSum", "pooling.last.counted", [mask, one], reverse=1)
    least = graph.node("Equal", "pooling.last.least", [counted, one])
    flags = graph.node("Cast", "pooling.last.flags", [least], to=ir.DataType.INT64)
    return graph.node("Mul", "pooling.last", [flags, mask])


def _mean(graph: GraphWriter, values: ir.Value, mask: ir.Value | None) -> ir.Value:
    if mask is None:
        return graph.node("ReduceMean", "pooling.mean", [values, tokens_axis(graph)], keepdims=0)
    weights, axis = graph.node("Cast", "pooling.mask", [mask], to=ir.DataType.FLOAT), tokens_axis(graph)
    row = graph.node("Unsqueeze", "pooling.row", [weights, axis])
    total = graph.node("Squeeze", "pooling.sum", [graph.node("MatMul", "pooling.total", [row, values]), axis])
    count = graph.node("ReduceSum", "pooling.count", [weights, axis], keepdims=1)
    one = graph.constant("pooling.one", np.array(1, np.float32))  # a row without tokens is zero, not NaN
    return graph.node("Div", "pooling.mean", [total, graph.node("Max", "pooling.tokens", [count, one])])


def tokens_axis(graph: GraphWriter) -> ir.Value:
    """Of values ``[batch, seq, …]``."""
    return graph.constant("pooling.axis", np.array([1], np.int64))
