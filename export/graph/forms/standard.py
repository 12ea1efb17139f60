"""Operators of ONNX Runtime's own as those of standard ONNX (opset 23) that compute the same.

Attention is the exception: ``GroupQueryAttention`` over one buffer for past and present has no standard form
that the same runtime could drive. OpenVINO reads it; TensorRT leaves it to CUDA.

The look-up of a quantized embedding in operators of ONNX alone, on the same packed codes.

``GatherBlockQuantized`` is missing from the build of ONNX Runtime for browsers that has WebGPU, which is the
one that transformers.js brings, where it computes in WebAssembly. ``MatMulNBits`` and attention are in it.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from ..graph_writer import Array, Opset

OPSET = Opset(23, 11)
KEPT = "GroupQueryAttention"
_LOOKUP = "GatherBlockQuantized"
_BYTE = 8


class Rewriter:
    """Replaces ``node`` by nodes of the same name, with the same outputs."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph, self.node, self.name = graph, node, str(node.name)
        self._made = 0

    def add(self, op: str, inputs: list[ir.Value | None], **attributes: int | float | str) -> ir.Value:
        """One more node before the one that goes; returns its output."""
        made = ir.node(
            op, inputs, attributes, name=self.name if not self._made else f"{self.name}.{self._made}"
        )
        made.outputs[0].name = f"{made.name}/out"
        self._made += 1
        self.graph.insert_before(self.node, made)
        return made.outputs[0]

    def number(self, value: float) -> ir.Value:
        """A float32 scalar, one for each ``value``."""
        return self._constant(f"standard.{value}", np.array(value, np.float32))

    def byte(self, value: int) -> ir.Value:
        """A uint8 scalar, one for each ``value``."""
        return self._constant(f"standard.byte.{value}", np.array(value, np.uint8))

    def cut(self, value: ir.Value | None, start: ir.Value, end: ir.Value, axis: int) -> ir.Value:
        """``value`` from ``start`` to ``end``, of one number each, along an axis."""
        return self.add("Slice", [value, start, end, self.shape(axis)])

    def shape(self, *sizes: int) -> ir.Value:
        """Whole numbers, such as the shape of a ``Reshape``, where 0 leaves a dimension as it is."""
        return self._constant(f"standard.shape.{'.'.join(map(str, sizes))}", np.array(sizes, np.int64))

    def _constant(self, name: str, array: Array) -> ir.Value:
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            made = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
            )
            self.graph.register_initializer(made)
        return self.graph.initializers[name]

    def finish(self, *results: ir.Value | None) -> None:
        """Use ``results`` where the outputs of the node were used, None for those that were not."""
        for old, new in zip(self.node.outputs, results, strict=False):
            if new is None:
                continue
            for index, output in enumerate(self.graph.outputs):
                if output is old:
                    new.name, new.type, new.shape = old.name, old.type, old.shape
                    self.graph.outputs[index] = new
            ir.convenience.replace_all_uses_with(old, new)
        self.graph.remove(self.node, safe=True)


def to_standard(model: ir.Model) -> None:
    """Change ``model`` in place."""
    for node in list(model.graph):
        if node.op_type in _FORMS:
            _FORMS[node.op_type](Rewriter(model.graph, node))
    model.graph.opset_imports[""] = OPSET.version
    model.ir_version = max(model.ir_version or 0, OPSET.ir_version)


def _rms(change: Rewriter) -> None:
    value, scale = change.node.inputs
    change.finish(_normalized(change, value, scale))


def _sum_and_rms(change: Rewriter) -> None:
    value, skip, scale, *bias = change.node.inputs
    total = change.add("Add", [value, skip])
    for one in bias:
        total = change.add("Add", [total, one])
    change.finish(_normalized(change, total, scale), None, None, total)


def _normalized(change: Rewriter, value: ir.Value | None, scale: ir.Value | None) -> ir.Value:
    epsilon = change.node.attributes["epsilon"].as_float()
    return change.add("RMSNormalization", [value, scale], axis=-1, epsilon=epsilon, stash_type=1)


def _quick_gelu(change: Rewriter) -> None:
    value, alpha = change.node.inputs[0], change.node.attributes["alpha"].as_float()
    inner = value if alpha == 1 else change.add("Mul", [value, change.number(alpha)])
    change.finish(change.add("Mul", [value, change.add("Sigmoid", [inner])]))


def _gelu(approximate: str) -> Callable[[Rewriter], None]:
    def change_node(change: Rewriter) -> None:
        value, *bias = change.node.inputs
        for one in bias:
            value = change.add("Add", [value, one])
        change.finish(change.add("Gelu", [value], approximate=approximate))

    return change_node


def _transposed_product(change: Rewriter) -> None:
    value, weight = change.node.inputs
    transposed = change.add("Transpose", [weight])
    change.finish(change.add("MatMul", [value, transposed]))


def _rope(change: Rewriter) -> None:
    """Of tokens that have the positions from 0; halves of a head turn against each other, the rest stays."""
    value, _, *tables = change.node.inputs
    heads, size = (change.node.attributes[name].as_int() for name in ("num_heads", "rotary_embedding_dim"))
    length = change.add("Shape", [value], start=1, end=2)
    cos, sin = (
        change.add("Unsqueeze", [change.cut(table, change.shape(0), length, 0), change.shape(1)])
        for table in tables
    )
    by_head = change.add("Reshape", [value, change.shape(0, 0, heads, -1)])
    ends = [change.shape(end) for end in (0, size // 2, size, 1 << 30)]
    first, second, rest = (change.cut(by_head, *pair, -1) for pair in pairwise(ends))

    def turned(one: ir.Value, other: ir.Value, op: str) -> ir.Value:
        return change.add(op, [change.add("Mul", [first, one]), change.add("Mul", [second, other])])

    parts: list[ir.Value | None] = [turned(cos, sin, "Sub"), turned(sin, cos, "Add"), rest]
    whole = change.add("Concat", parts, axis=-1)
    change.finish(change.add("Reshape", [whole, change.shape(0, 0, -1)]))


_FORMS: dict[str, Callable[[Rewriter], None]] = {
    "SimplifiedLayerNormalization": _rms,
    "SkipSimplifiedLayerNormalization": _sum_and_rms,
    "QuickGelu": _quick_gelu,
    "Gelu": _gelu("none"),
    "BiasGelu": _gelu("none"),
    "FastGelu": _gelu("tanh"),
    "FusedMatMul": _transposed_product,
    "RotaryEmbedding": _rope,
}


def to_plain_rows(model: ir.Model) -> None:
    """Change ``model`` in place. A table with zero points keeps the runtime's own operator."""
    for node in list(model.graph):
        if node.op_type == _LOOKUP and len(node.inputs) == 3:
            _look_up(Rewriter(model.graph, node))


def _look_up(change: Rewriter) -> None:
    codes, ids, scales = change.node.inputs
    bits, block = (change.node.attributes[key].as_int() for key in ("bits", "block_size"))
    rows = change.add("Gather", [codes, ids], axis=0)  # [batch, seq, blocks, bytes]
    if bits < _BYTE:
        rows = _unpacked(change, rows, bits, block)
    value = change.add("Cast", [rows], to=ir.DataType.FLOAT.value)
    value = change.add("Sub", [value, change.number(float(1 << (bits - 1)))])
    scale = change.add("Gather", [scales, ids], axis=0)
    change.finish(change.add("Mul", [value, scale]))


def _unpacked(change: Rewriter, rows: ir.Value, bits: int, block: int) -> ir.Value:
    """One code a byte, the first in the lowest bits."""
    mask, last, parts = change.byte((1 << bits) - 1), change.shape(-1), list[ir.Value | None]()
    for shift in range(0, _BYTE, bits):
        part = rows if not shift else change.add("BitShift", [rows, change.byte(shift)], direction="RIGHT")
        parts.append(change.add("Unsqueeze", [change.add("BitwiseAnd", [part, mask]), last]))
    together = change.add("Concat", parts, axis=-1)
    return change.add("Reshape", [together, change.shape(0, 0, 0, block)])
