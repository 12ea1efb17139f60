"""How many bytes a kernel moves: its weights as it really reads them, and its keys and values.

``MatMulNBits`` repacks its weights when it is loaded: beside the codes it keeps a float32 scale and, for its
int8 activations, a float32 sum for each block. A lookup reads the rows that it was asked for. Attention reads
its cache up to the current position, whatever the capacity. Activations are left out: they stay in the caches
of the processor.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from ...runtime.bundle.graph_file import GraphFile, Node
from .trace import Kernel

_SCALE = _BLOCK_SUM = 4
_INT8_ACTIVATIONS = 4
_LOOKUPS = frozenset({"Gather", "GatherBlockQuantized", "Slice"})
_ATTENTION = "GroupQueryAttention"
_ITEM = {"float": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


def weight_bytes(kernel: Kernel, graph: GraphFile) -> int:
    """Bytes of weights that ``kernel`` reads once it has been prepared.

    A node that the runtime made itself is not in the ``graph``: the trace tells what it was given.
    """
    node = graph.nodes.get(kernel.node)
    if kernel.op == "MatMulNBits" and node is not None:
        return _packed_bytes(node)
    if kernel.op in _LOOKUPS:
        return min(_given(kernel, node, graph), kernel.output_bytes)
    # Attention reads a row of its rope tables for each token: nothing beside the keys and values.
    return 0 if kernel.op == _ATTENTION else _given(kernel, node, graph)


def _packed_bytes(node: Node) -> int:
    attributes = node.attributes
    block = attributes["block_size"]
    blocks = attributes["N"] * -(-attributes["K"] // block)
    sums = _BLOCK_SUM if attributes.get("accuracy_level") == _INT8_ACTIVATIONS else 0
    return blocks * (block * attributes["bits"] // 8 + _SCALE + sums)


def _given(kernel: Kernel, node: Node | None, graph: GraphFile) -> int:
    if node is None:
        return kernel.parameter_bytes
    return sum(graph.weights[name].nbytes for name in node.inputs if name in graph.weights)


def tokens_by_run(kernels: Iterable[Kernel]) -> dict[int, int]:
    """Tokens of each row in the cache after each run of the graph."""
    fed = {kernel.run: kernel.inputs[0][1][1] for kernel in kernels if kernel.op == _ATTENTION}
    total, found = 0, {}
    for run in sorted(fed):
        total += fed[run]
        found[run] = total
    return found


def kv_bytes(kernel: Kernel, graph: GraphFile, cached: dict[int, int]) -> int:
    """Bytes of keys and values that ``kernel`` reads and appends; ``cached`` is of :func:`tokens_by_run`."""
    if kernel.op != _ATTENTION:
        return 0
    fed = kernel.inputs[0][1][1]
    node = graph.nodes.get(kernel.node)
    window = node.attributes.get("local_window_size", -1) if node is not None else -1
    read = cached[kernel.run] if window < 0 else min(cached[kernel.run], window + fed - 1)
    caches = [(kind, shape) for kind, shape in kernel.inputs if len(shape) == 4][:2]  # not their scales
    position = sum(prod(shape) // max(shape[2], 1) * _ITEM.get(kind, 0) for kind, shape in caches)
    return position * (read + fed)
