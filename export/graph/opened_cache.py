"""Attention of a prefill graph over int8 codes: those in the cache are read as floats once, and those of new
tokens are made when attention is through.

``GroupQueryAttention`` reads int8 codes anew for every token that looks at them. For one token that is the
fast way; for a chunk of a prompt it takes three times as long as attention over floats
(benchmarks/results/kv-cache.md). New tokens see each other's keys and values before these are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...compress.anatomy import Attention
from .build import Build
from .cache import code_scales

Pair = tuple[ir.Value, ir.Value]
_CODES = (-128.0, 127.0)
_TOKENS = 2  # axis of the cache


def opens(build: Build) -> bool:
    """Whether the graph under construction is one for prefill, over int8 codes."""
    return build.remade is not None and build.weights.kv_dtype == "int8"


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
            number = graph.node("Cast", f"{value.name}.number", [codes], to=ir.DataType.FLOAT)
            found.append(graph.node("Mul", f"{value.name}.float", [number, scale]))
        return found[0], found[1]

    def codes(self, present: Pair) -> Pair:
        """The whole cache, with codes of what ``present`` (float32) has from ``start`` on in their place."""
        graph = self.build.graph
        least, most = (graph.constant(f"kv.{limit:.0f}", np.array(limit, np.float32)) for limit in _CODES)
        found = []
        for old, new, scale in zip(self.past, present, code_scales(self.build, self.part), strict=True):
            name = str(old.name)
            added = self._tokens(new, f"{name}.added", self.start, self.end)
            steps = graph.node(
                "Round", f"{name}.steps", [graph.node("Div", f"{name}.scaled", [added, scale])]
            )
            clipped = graph.node("Clip", f"{name}.clipped", [steps, least, most])
            codes = graph.node("Cast", f"{name}.codes", [clipped], to=ir.DataType.INT8)
            before = self._tokens(old, f"{name}.before", self._zero(), self.start)
            after = self._tokens(old, f"{name}.after", self.end, self._last())
            found.append(graph.node("Concat", f"{name}.extended", [before, codes, after], axis=_TOKENS))
        return found[0], found[1]

    def _tokens(self, value: ir.Value, name: str, start: ir.Value, end: ir.Value) -> ir.Value:
        axis = self.build.graph.constant("kv.axis", np.array([_TOKENS], np.int64))
        return self.build.graph.node("Slice", name, [value, start, end, axis])

    def _zero(self) -> ir.Value:
        return self.build.graph.constant("kv.zero", np.zeros(1, np.int64))

    def _last(self) -> ir.Value:
        return self.build.graph.constant("kv.last", np.array([np.iinfo(np.int64).max], np.int64))
