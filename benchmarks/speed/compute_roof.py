"""The roof of arithmetic: multiply-adds of products from the shapes in a trace, held against the rate that
the fastest product of the same kind reaches in the same run: what reads its weights once for many rows is not
to be judged by bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from .trace import Kernel

_PRODUCTS = frozenset(
    {
        *("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat"),
        *("DynamicQuantizeMatMul", "QGemm", "QLinearMatMul", "QuantizedProduct", "IntegerProduct"),
    }
)
_ATTENTION = ("Attention", "MultiHeadAttention")
_HALF = ("float16", "bfloat16")
# A node below this share of its phase is too short to say how fast an operator can be.
_LEAST_SHARE = 0.01


def multiply_adds(kernel: Kernel) -> int:
    """Of a product ``[…, inner] × [inner, …]``: ``inner`` for each number of the output; of attention over a
    whole text; 0 of others.
    """
    if kernel.op in _ATTENTION and len(kernel.inputs) > 1:
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
