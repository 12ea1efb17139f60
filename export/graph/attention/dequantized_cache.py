"""Attention of a prefill graph over int8 or int4 codes: cached codes are dequantized once a chunk, and new
tokens are quantized after attention.

``GroupQueryAttention`` dequantizes the codes again for every query. For one token that is the fast way; for a
chunk of a prompt it takes three times as long as attention over floats (benchmarks/lab/results/kv-cache.md).
New tokens see each other's keys and values before these are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ....compress.model.block_anatomy import Attention
from ..build import Build
from ..graph_writer import GraphWriter
from .cache_io import code_scales

_OFFSET, _HALVES = 8, 16
Pair = tuple[ir.Value, ir.Value]
# Least and largest code, by the type that a cache is stored in: two of four bits are a uint8.
_CODES = {"int8": (-128.0, 127.0), "uint8": (-8.0, 7.0)}
_TOKENS = 2  # axis of the cache


def opens(build: Build) -> bool:
    """Whether the graph under construction is one for prefill, over codes."""
    return build.prepacked is not None and build.weights.kv_dtype in _CODES


@dataclass(frozen=True)
class OpenedCache:
    """The codes of a layer, ``past``, of which the first ``start [1]`` tokens are valid before a chunk and
    ``end [1]`` after it.
    """

    build: Build
    part: Attention
    past: Pair
    start: ir.Value
    end: ir.Value

    def floats(self) -> Pair:
        """The keys and values that are there, ``[batch, kv_heads, start, head_dim]`` float32."""
        graph = self.build.graph
        found = []
        for value, scale in zip(self.past, code_scales(self.build, self.part), strict=True):
            codes = self._tokens(value, f"{value.name}.filled", self._zero(), self.start)
            found.append(graph.node("Mul", f"{value.name}.float", [self._numbers(codes), scale]))
        return found[0], found[1]

    def codes(self, present: Pair) -> Pair:
        """The whole cache, where the codes from ``start`` to ``end`` are those of ``present``
        (float32)."""
        graph = self.build.graph
        least, most = (
            graph.constant(f"kv.{limit:.0f}", np.array(limit, np.float32)) for limit in self._limits
        )
        found = []
        for old, new, scale in zip(self.past, present, code_scales(self.build, self.part), strict=True):
            name = str(old.name)
            added = self._tokens(new, f"{name}.added", self.start, self.end)
            steps = graph.node(
                "Round", f"{name}.steps", [graph.node("Div", f"{name}.scaled", [added, scale])]
            )
            clipped = graph.node("Clip", f"{name}.clipped", [steps, least, most])
            codes = self._stored(clipped, name)
            before = self._tokens(old, f"{name}.before", self._zero(), self.start)
            after = self._tokens(old, f"{name}.after", self.end, self._last())
            found.append(graph.node("Concat", f"{name}.extended", [before, codes, after], axis=_TOKENS))
        return found[0], found[1]

    @property
    def _limits(self) -> tuple[float, float]:
        return _CODES[self.build.weights.kv_dtype]

    def _numbers(self, codes: ir.Value) -> ir.Value:
        graph, name = self.build.graph, str(codes.name)
        if self.build.weights.kv_dtype == "uint8":
            return read_pairs(graph, name, codes, self.part.head_dim)
        return graph.node("Cast", f"{name}.number", [codes], to=ir.DataType.FLOAT)

    def _stored(self, steps: ir.Value, name: str) -> ir.Value:
        if self.build.weights.kv_dtype == "uint8":
            return write_pairs(self.build.graph, name, steps, self.part.head_dim)
        return self.build.graph.node("Cast", f"{name}.codes", [steps], to=ir.DataType.INT8)

    def _tokens(self, value: ir.Value, name: str, start: ir.Value, end: ir.Value) -> ir.Value:
        axis = self.build.graph.constant("kv.axis", np.array([_TOKENS], np.int64))
        return self.build.graph.node("Slice", name, [value, start, end, axis])

    def _zero(self) -> ir.Value:
        return self.build.graph.constant("kv.zero", np.zeros(1, np.int64))

    def _last(self) -> ir.Value:
        return self.build.graph.constant("kv.last", np.array([np.iinfo(np.int64).max], np.int64))


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
    byte = graph.node("MatMul", f"{name}.joined", [pairs, weight])
    flat = _last_axes(graph, f"{name}.flat", byte, channels // 2)
    moved = graph.node("Add", f"{name}.byte", [flat, offset])
    return graph.node("Cast", f"{name}.codes", [moved], to=ir.DataType.UINT8)


def _last_axes(graph: GraphWriter, name: str, value: ir.Value, *sizes: int) -> ir.Value:
    """``value`` with axes of ``sizes`` for all behind its first three; a cache may have no tokens yet."""
    shape = np.array([0, 0, 0, *sizes], np.int64)
    return graph.node("Reshape", name, [value, graph.constant(f"kv.shape.{sizes}", shape)])
