"""The products among a graph's nodes as operations, from a node's attributes or the shape of its weights.

``Run``: one run of a graph, and ``Operations``: what it does.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from ...errors import BundleError
from ...runtime.bundle.graph_file import GraphFile, Node
from ..kernel_table.operation import (
    Operation,
    float_product,
    integer_product,
    nbits_product,
    quantized_product,
)


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
        trellis=bool(found.get("trellis")),
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
    second = node.inputs[1] in graph.weights
    weight = graph.weights.get(node.inputs[1 if second else 0])
    if weight is None or len(weight.shape) != 2:
        return None
    k, n = weight.shape
    if node.attributes.get("transB") or not second:  # weights in front are [n, k]
        k, n = n, k
    if node.op == "MatMulIntegerToFloat":
        return float_product(rows, k, n, node.op, 1)
    return float_product(rows, k, n)


PRODUCTS: dict[str, Callable[[GraphFile, Node, int], Operation | None]] = {
    "QuantizedProduct": _own_product,
    "IntegerProduct": _own_integer,
    "MatMulNBits": _nbits,
    "FusedMatMul": _floating,
    "MatMul": _floating,
    "Gemm": _floating,
    "MatMulIntegerToFloat": _floating,
}
# Their weights are packed when a session is made.
PACKED = frozenset({"MatMulNBits", "FusedMatMul", "MatMul", "Gemm", "MatMulIntegerToFloat"})


def convolution(graph: GraphFile, node: Node, rows: int) -> tuple[Operation, int] | None:
    """A convolution of ``rows`` positions as the product that it comes to, and the positions that it leaves;
    None where its weights are not in the graph.
    """
    weight = graph.weights.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is None or len(weight.shape) < 3:
        return None
    outputs, *kernel = weight.shape
    left = max(rows // max(node.attributes.get("strides", 1), 1) ** (len(kernel) - 1), 1)
    return float_product(left, prod(kernel), outputs), left


def split_widths(graph: GraphFile, node: Node, width: int) -> list[int]:
    """Of each output of ``node``, which splits rows of ``width`` numbers; equal ones where it says no
    sizes.
    """
    count = len(node.outputs)
    if len(node.inputs) < 2 or not node.inputs[1]:
        return [width // max(count, 1)] * count
    weight = graph.weights.get(node.inputs[1])
    sizes = () if weight is None else weight.values
    if len(sizes) != count or min(sizes) < 0 or not sum(sizes):
        raise BundleError(
            f"a Split into {count} parts has the sizes {list(sizes)}",
            why="what follows each part is predicted from its size",
            fix="export the model again",
        )
    return [width * size // sum(sizes) for size in sizes]


@dataclass(frozen=True)
class Run:
    """One run of a graph.

    Attributes:
        rows: tokens that go in; past: tokens in the cache before them; kept: positions that logits are for.
        length: tokens of each text, image or sound that an encoder reads, or that a decoder looks back at.
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
        taken: operators that were not measured and count as another of the same size, by their names.
        packed: bytes of weights that the runtime keeps in an order of its own, beside the file.
        attended: tokens that the first attention reads, of all texts, images or sounds.
    """

    counts: Counter[Operation] = field(default_factory=Counter)
    nodes: int = 0
    assumed: set[str] = field(default_factory=set)
    taken: dict[str, str] = field(default_factory=dict)
    packed: int = 0
    attended: int = 0

    @property
    def working_set(self) -> int:
        """Bytes of weights and caches that the run reads."""
        return sum(count * one.read for one, count in self.counts.items())

    @property
    def small(self) -> int:
        """Nodes that are not among the operations."""
        return self.nodes - sum(self.counts.values())
