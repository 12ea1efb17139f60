"""The roofline: bytes that each kernel moves, and the ceiling that bandwidth sets on decoding.

Williams, Waterman, Patterson, "Roofline", CACM 2009: decoding one token at batch 1 reads every weight once.
The bandwidth is measured on the spot, over a working set as large as the weights: a small model may live in
the last-level cache, and the roof of main memory would call its honest rate impossible. A rate above 1.05 ×
the ceiling is a measuring error, whatever its cause, and marks the run invalid.

The roof of arithmetic: multiply-adds of products from the shapes in a trace, held against the rate that the
fastest product of the same kind reaches in the same run: what reads its weights once for many rows is not to
be judged by bandwidth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...devices.bandwidth import SMALLEST, Bandwidth, beyond_cache, measure_bandwidth
from ...runtime.bundle.graph_file import GraphFile, Node
from ..records.record import Metric
from .trace import Kernel

_SCALE = _BLOCK_SUM = 4
_INT8_ACTIVATIONS = 4
_LOOKUPS = frozenset({"Gather", "GatherBlockQuantized", "QuantizedRows", "Slice"})
# Our own is named after the bits of its cache: ``CachedAttention8``.
_ATTENTION = ("GroupQueryAttention", "CachedAttention")
_ITEM = {"float": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


def weight_bytes(kernel: Kernel, graph: GraphFile) -> int:
    """Bytes of weights that ``kernel`` reads once it has been prepared.

    A node that the runtime made itself is not in the ``graph``: the trace says what it was given.
    """
    node = graph.nodes.get(kernel.node)
    if kernel.op == "MatMulNBits" and node is not None:
        return _packed_bytes(node)
    if kernel.op in _LOOKUPS:
        return min(_given(kernel, node, graph), kernel.output_bytes)
    if kernel.op == "MatMulIntegerToFloat" and node is None:  # of two forms, which the runtime named anew
        return multiply_adds(kernel) // max(prod(kernel.inputs[0][1][:-1]), 1)
    # Attention reads a row of its rope tables for each token: nothing beside the keys and values.
    return 0 if kernel.op.startswith(_ATTENTION) else _given(kernel, node, graph)


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
    fed = {kernel.run: kernel.inputs[0][1][1] for kernel in kernels if kernel.op.startswith(_ATTENTION)}
    total, found = 0, {}
    for run in sorted(fed):
        total += fed[run]
        found[run] = total
    return found


def kv_bytes(kernel: Kernel, graph: GraphFile, cached: dict[int, int]) -> int:
    """Bytes of keys and values that ``kernel`` reads and appends; ``cached`` is of :func:`tokens_by_run`."""
    if not kernel.op.startswith(_ATTENTION):
        return 0
    fed = kernel.inputs[0][1][1]
    node = graph.nodes.get(kernel.node)
    window = node.attributes.get("local_window_size", -1) if node is not None else -1
    read = cached[kernel.run] if window < 0 else min(cached[kernel.run], window + fed - 1)
    caches = [(kind, shape) for kind, shape in kernel.inputs if len(shape) == 4][:2]  # not their scales
    position = sum(prod(shape) // max(shape[2], 1) * _ITEM.get(kind, 0) for kind, shape in caches)
    return position * (read + fed)


TOLERANCE = 1.05


@dataclass(frozen=True)
class Roofline:
    """A ceiling on decode tokens per second, from the best bandwidth seen near the weights' size."""

    bytes_per_token: int
    at_weights: Bandwidth
    at_memory: Bandwidth

    @property
    def ceiling(self) -> float:
        """Tokens per second that the measured bandwidth allows."""
        return self.at_weights.bytes_per_second / self.bytes_per_token

    def describe(self, decode: Metric) -> dict[str, Any]:
        """JSON for the record; ``fraction`` is the part of the ceiling that decoding reaches."""
        return {
            "bytes_per_token": self.bytes_per_token,
            "ceiling_tps": self.ceiling,
            "fraction": None if decode.value is None else decode.value / self.ceiling,
            "tolerance": TOLERANCE,
            "bandwidth_at_weights": self.at_weights.as_dict(),
            "bandwidth_of_memory": self.at_memory.as_dict(),
        }


def impossible(rate: float | None, ceiling: float) -> str | None:
    """Why ``rate`` cannot be true, or None when it can."""
    if rate is None or rate <= TOLERANCE * ceiling:
        return None
    return f"impossible: {rate:.0f} tok/s is above {TOLERANCE} × the ceiling of {ceiling:.0f} tok/s"


def measure_both(
    bytes_per_token: int, cache_bytes: int | None, *, threads: int, known: Bandwidth | None = None
) -> tuple[Bandwidth, Bandwidth]:
    """Bandwidth over a working set of the weights' size, and over one that only main memory can hold, unless
    that is ``known``: what a machine's memory does takes the longest to measure, and stays.
    """
    memory, size = beyond_cache(cache_bytes), max(bytes_per_token, SMALLEST)
    if size >= memory:
        at_memory = measure_bandwidth(memory, threads=threads)
        return at_memory, at_memory
    at_memory = known or measure_bandwidth(memory, threads=threads)
    return measure_bandwidth(size, threads=threads), at_memory


def best(measured: Sequence[tuple[Bandwidth, Bandwidth]], bytes_per_token: int) -> Roofline:
    """The roofline under the best of several measurements: noise lowers a bandwidth and never raises it."""
    return Roofline(
        bytes_per_token,
        at_weights=max((pair[0] for pair in measured), key=lambda found: found.bytes_per_second),
        at_memory=max((pair[1] for pair in measured), key=lambda found: found.bytes_per_second),
    )


_PRODUCTS = frozenset(
    {
        *("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat"),
        *("DynamicQuantizeMatMul", "QGemm", "QLinearMatMul"),
        *("QuantizedProduct", "RoutedProduct", "IntegerProduct"),
    }
)
_WHOLE_TEXTS = ("Attention", "MultiHeadAttention")
_HALF = ("float16", "bfloat16")
# A node below this share of its phase is too short to say how fast an operator can be.
_LEAST_SHARE = 0.01


def multiply_adds(kernel: Kernel) -> int:
    """Of a product ``[…, inner] × [inner, …]``: ``inner`` for each number of the output; of attention over a
    whole text; 0 of others.
    """
    if kernel.op in _WHOLE_TEXTS and len(kernel.inputs) > 1:
        # Scores and their sums over the values; queries and keys are [batch, tokens, channels].
        (_, queries), (_, keys) = kernel.inputs[:2]
        return 2 * prod(queries) * keys[1] if len(queries) == len(keys) == 3 else 0
    if kernel.op not in _PRODUCTS or not kernel.inputs:
        return 0
    kind, shape = kernel.inputs[0]
    return (shape[-1] if shape else 0) * (kernel.output_bytes // (2 if kind in _HALF else 4))


def fastest(phases: Iterable[Iterable[tuple[str, float, int]]]) -> dict[str, float]:
    """Multiply-adds per millisecond of the fastest node of each operator; of the nodes of each phase given
    are ``(operator, ms, multiply-adds)``.
    """
    found: dict[str, float] = {}
    for phase in phases:
        nodes = list(phase)
        least = _LEAST_SHARE * sum(ms for _, ms, _ in nodes)
        for op, ms, count in nodes:
            if count and ms > 0 and ms >= least:
                found[op] = max(found.get(op, 0.0), count / ms)
    return found
