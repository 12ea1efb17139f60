"""Two int4 codes a byte, as a cache holds them, read and written by nodes of the default domain.

The code of an even channel is in the low half of a byte, each stored as code + 8.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph_writer import GraphWriter

_OFFSET, _HALVES = 8, 16


def read_pairs(graph: GraphWriter, name: str, value: ir.Value, channels: int) -> ir.Value:
    """The codes of ``value [batch, heads, tokens, channels / 2]`` uint8 as float32, ``channels`` wide."""
    every = np.arange(_HALVES**2)
    pairs = np.stack([every % _HALVES, every // _HALVES], 1).astype(np.float32) - _OFFSET
    table = graph.constant("kv.pairs", pairs)
    index = graph.node("Cast", f"{name}.index", [value], to=ir.DataType.INT32)
    found = graph.node("Gather", f"{name}.pairs", [table, index])
    return _last_axes(graph, f"{name}.number", found, channels)


def write_pairs(graph: GraphWriter, name: str, steps: ir.Value, channels: int) -> ir.Value:
    """The bytes ``[…, channels / 2]`` of ``steps [batch, heads, tokens, channels]``, float32 from -8 to 7."""
    weight = graph.constant("kv.halves", np.array([[1.0], [_HALVES]], np.float32))
    offset = graph.constant("kv.offset", np.array(_OFFSET * (1 + _HALVES), np.float32))
    pairs = _last_axes(graph, f"{name}.pairs", steps, channels // 2, 2)
    joined = graph.node("MatMul", f"{name}.joined", [pairs, weight])
    flat = _last_axes(graph, f"{name}.flat", joined, channels // 2)
    moved = graph.node("Add", f"{name}.byte", [flat, offset])
    return graph.node("Cast", f"{name}.codes", [moved], to=ir.DataType.UINT8)


def _last_axes(graph: GraphWriter, name: str, value: ir.Value, *sizes: int) -> ir.Value:
    """``value`` with axes of ``sizes`` for all behind its first three; a cache may have no tokens yet."""
    shape = np.array([0, 0, 0, *sizes], np.int64)
    return graph.node("Reshape", name, [value, graph.constant(f"kv.shape.{sizes}", shape)])
