"""What the nodes of a bundle's graph do in one run: a list of operations with their counts, from the graph's
file and the manifest alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile, Node
from ...runtime.bundle.manifest import KVLayer
from ..kernel_table.operation import (
    Operation,
    by_rows,
    cached_attention,
    encoder_attention,
    float_product,
    integer_product,
    nbits_product,
    plain_attention,
    quantized_product,
)

KEEP = "logits_to_keep"
_PASSES = {
    "SkipSimplifiedLayerNormalization": 4,
    "SumRootMeanSquareNorm": 4,
    "SumNorm": 3,
    "Add": 3,
    "Mul": 3,
    "Sum": 3,
}
_MEASURED = (
    "RootMeanSquareNorm",
    "SimplifiedLayerNormalization",
    "LayerNormalization",
    "Gelu",
    "QuickGelu",
    "FastGelu",
    "BiasGelu",
)
_FREE = frozenset({"Reshape", "Identity", "Unsqueeze", "Squeeze", "PoolTokens", "UnpackTokens", "Slice"})
_LOOKUPS = ("QuantizedRows", "Gather", "GatherBlockQuantized", "EncoderEmbeddings")


@dataclass(frozen=True)
class Run:
    """One run of a graph.

    Attributes:
        rows: tokens that go in; past: tokens in the cache before them; kept: positions that logits are for.
        length: tokens of each text, for an encoder.
    """

    rows: int
    past: int = 0
    kept: int = 1
    length: int = 0


@dataclass
class Operations:
    """What a run does.

    Attributes:
        counts: operations, each with how often it is executed.
        nodes: all nodes, those that hardly compute among them.
        assumed: operators that were not measured and count as a sum of the same size.
        packed: bytes of weights that the runtime keeps in an order of its own, beside the file.
    """

    counts: Counter[Operation] = field(default_factory=Counter)
    nodes: int = 0
    assumed: set[str] = field(default_factory=set)
    packed: int = 0

    @property
    def working_set(self) -> int:
        """Bytes of weights and caches that the run reads."""
        return sum(count * one.read for one, count in self.counts.items())

    @property
    def small(self) -> int:
        """Nodes that are not among the operations."""
        return self.nodes - sum(self.counts.values())


_Value = tuple[int, int]  # rows and width


class _Walk:
    """Goes through the nodes in the order in which they run."""

    def __init__(self, graph: GraphFile, layers: list[KVLayer], kv_dtype: str, run: Run) -> None:
        self.graph, self.run, self.kv_dtype = graph, run, kv_dtype
        self.layers = iter(layers)
        self.values: dict[str, _Value] = {}
        # What is computed of how many positions are asked for; rows that are taken by it are so many.
        self.kept = {KEEP}
        self.found = Operations(nodes=len(graph.nodes))

    def go(self) -> Operations:
        for node in self.graph.nodes.values():
            self._node(node)
        return self.found

    def _node(self, node: Node) -> None:
        if node.op in _LOOKUPS:
            self._lookup(node)
            return
        into = next((self.values[name] for name in node.inputs if name in self.values), None)
        asked = any(name in self.kept for name in node.inputs)
        if into is None:
            self.kept.update(node.outputs if asked else ())
            return
        rows, width = into
        if asked:
            rows = min(rows, self.run.kept) if self.run.kept else rows
            self._leave(node, rows, width)
            return
        make = _PRODUCTS.get(node.op)
        operation = None
        if make is not None:
            operation = make(self.graph, node, rows)
        elif "Attention" in node.op:
            operation = self._attention(node, rows, width)
        if operation is not None:
            self.found.counts[operation] += 1
            if node.op in _PACKED:
                self.found.packed += operation.read
            self._leave(node, rows, self._width_of(node, operation))
        elif node.op == "Split":
            self._elementwise(node, rows, width)
            self._leave(node, rows, width // max(len(node.outputs), 1))
        else:
            if node.op not in _FREE:
                self._elementwise(node, rows, width)
            self._leave(node, rows, width)

    def _leave(self, node: Node, rows: int, width: int) -> None:
        for name in node.outputs:
            if name:
                self.values[name] = (rows, width)

    @staticmethod
    def _width_of(node: Node, operation: Operation) -> int:
        if operation.kind in ("product", "head"):
            return operation.sizes[2] // (2 if node.attributes.get("gated") else 1)
        return operation.moved // max(8 * operation.sizes[0], 1)

    def _lookup(self, node: Node) -> None:
        if node.op == "QuantizedRows":
            width = node.attributes["K"]
        else:
            shapes = [self.graph.weights[name].shape for name in node.inputs if name in self.graph.weights]
            tables = [shape for shape in shapes if len(shape) >= 2]
            if not tables:
                return
            width = tables[0][1] * (tables[0][2] if len(tables[0]) > 2 else 1)
        op = "Gather" if node.op == "GatherBlockQuantized" else node.op
        self.found.counts[by_rows(op, self.run.rows, width)] += 1
        self._leave(node, self.run.rows, width)

    def _attention(self, node: Node, rows: int, width: int) -> Operation:
        heads = node.attributes.get("num_heads", 1)
        if node.op == "EncoderAttention":
            dim = width // 3 // heads
            exact = bool(node.attributes.get("exact", 1))
            return encoder_attention(rows, self.run.length or rows, heads, dim, exact=exact)
        layer = next(self.layers, None)
        if layer is None:  # of an encoder in standard operators
            heads = node.attributes.get("q_num_heads", heads)
            return plain_attention(rows, self.run.length or rows, heads, width // heads)
        window = node.attributes.get("local_window_size", -1)
        sizes = (heads, layer.kv_heads, layer.head_dim)
        return cached_attention(node.op, self.kv_dtype, rows, self.run.past, *sizes, window=window)

    def _elementwise(self, node: Node, rows: int, width: int) -> None:
        if width < 2:
            return
        op = node.op
        if op not in _PASSES and op not in _MEASURED:
            self.found.assumed.add(op)
            op = "Add"
        self.found.counts[by_rows(op, rows, width, _PASSES.get(op, 2))] += 1


def _own_product(graph: GraphFile, node: Node, rows: int) -> Operation:
    found = node.attributes
    return quantized_product(
        rows,
        found["K"],
        found["N"],
        found["bits"],
        group=found["group"],
        shared=found.get("shared", 1),
        zero_points=bool(found.get("zero_points")),
        gated=bool(found.get("gated")),
        wide=found.get("scale_bits") == 32,
    )


def _own_integer(graph: GraphFile, node: Node, rows: int) -> Operation:
    found = node.attributes
    residual = len(node.inputs) > 5 and bool(node.inputs[5])
    active = bool(found.get("activation"))
    return integer_product(rows, found["K"], found["N"], activation=active, residual=residual)


def _nbits(graph: GraphFile, node: Node, rows: int) -> Operation:
    found = node.attributes
    return nbits_product(rows, found["K"], found["N"], found["bits"], found["block_size"])


def _floating(graph: GraphFile, node: Node, rows: int) -> Operation | None:
    weight = graph.weights.get(node.inputs[1])
    if weight is None or len(weight.shape) != 2:
        return None
    first, second = weight.shape
    k, n = (second, first) if node.attributes.get("transB") else (first, second)
    if node.op == "MatMulIntegerToFloat":
        return float_product(rows, k, n, node.op, 1)
    return float_product(rows, k, n)


_PRODUCTS: dict[str, Callable[[GraphFile, Node, int], Operation | None]] = {
    "QuantizedProduct": _own_product,
    "IntegerProduct": _own_integer,
    "MatMulNBits": _nbits,
    "FusedMatMul": _floating,
    "MatMul": _floating,
    "Gemm": _floating,
    "MatMulIntegerToFloat": _floating,
}
# Their weights are packed when a session is made.
_PACKED = frozenset({"MatMulNBits", "FusedMatMul", "MatMul", "Gemm", "MatMulIntegerToFloat"})


def operations_of(graph: GraphFile, bundle: Bundle, run: Run) -> Operations:
    """What ``run`` of the graph of ``bundle`` does."""
    if bundle.kind == "decoder":
        section = bundle.decoder
        return _Walk(graph, list(section.layers), section.kv_dtype, run).go()
    return _Walk(graph, [], "float32", run).go()
