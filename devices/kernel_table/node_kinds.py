"""How one node of each operator is fed when it is timed: its attributes, and the arrays that it reads.

Weights and caches are each node's ``own``, so that a chain of nodes reads as many bytes as a model does;
activations are shared by all. Where the runtime packs weights when it opens a model, they are ``packed``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from .operation import (
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

Attributes = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Fed:
    """An input of a node. ``last`` is the largest of ids, or what fills a small constant; ``steps`` makes
    offsets ``0, steps, 2 · steps, …`` of it.
    """

    dtype: str
    shape: tuple[int, ...]
    role: Literal["shared", "own", "packed", "cache"] = "shared"
    last: float = 1.0
    steps: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class NodeKind:
    """A node that is timed, and the work that it does."""

    operation: Operation
    inputs: tuple[Fed | None, ...]
    attributes: Attributes = field(default_factory=dict)
    domain: str = ""
    outputs: int = 1
    named: str = ""

    @property
    def op(self) -> str:
        """The operator's name in a graph."""
        return self.named or self.operation.op


def _rows(rows: int, width: int) -> Fed:
    return Fed("float32", (rows, width))


def _own_row(rows: int, width: int) -> Fed:
    """Each node's own: the runtime would compute two standard nodes of the same inputs once."""
    return Fed("float32", (1, rows, width), "own")


def quantized(rows: int, k: int, n: int, bits: int, **features: int) -> NodeKind:
    """``QuantizedProduct``; ``features`` as of :func:`.operation.quantized_product`."""
    work = quantized_product(rows, k, n, bits, **features)  # type: ignore[arg-type]
    attributes = {
        "N": n,
        "K": k,
        "bits": bits,
        "group": features.get("group", 64),
        "shared": features.get("shared", 1),
        "zero_points": int(features.get("zero_points", 0)),
        "gated": int(features.get("gated", 0)),
        "scale_bits": 32 if features.get("wide") else 16,
        "trellis": int(features.get("trellis", 0)),
        "exact": 0,
    }
    return NodeKind(work, (_rows(rows, k), Fed("uint8", (work.read,), "own")), attributes, "edgepress")


def integer(rows: int, k: int, n: int, *, activation: bool = False, residual: bool = False) -> NodeKind:
    """``IntegerProduct``."""
    work = integer_product(rows, k, n, activation=activation, residual=residual)
    width = Fed("float32", (n,))
    tiles = Fed("uint8", (work.read - 8 * n,), "own")
    inputs: list[Fed | None] = [_rows(rows, k), tiles, width, None, width]
    inputs += [_rows(rows, n), width, width] if residual else []
    attributes = {"N": n, "K": k, "activation": int(activation), "input_scale": 0.0, "epsilon": 1e-5}
    return NodeKind(work, tuple(inputs), {**attributes, "exact": 0}, "edgepress")


def floats(rows: int, k: int, n: int) -> NodeKind:
    """``FusedMatMul`` of float32 weights ``[n, k]``."""
    attributes: Attributes = {"transA": 0, "transB": 1, "alpha": 1.0}
    inputs = (_rows(rows, k), Fed("float32", (n, k), "packed"))
    return NodeKind(float_product(rows, k, n), inputs, attributes, "com.microsoft")


def integer_to_float(rows: int, k: int, n: int) -> NodeKind:
    """``MatMulIntegerToFloat``, the standard product of 8-bit codes."""
    scale, zero = Fed("float32", ()), Fed("uint8", (), last=128)
    inputs = (Fed("uint8", (rows, k)), Fed("int8", (k, n), "packed"), scale, Fed("float32", (n,)), zero)
    work = float_product(rows, k, n, "MatMulIntegerToFloat", 1)
    return NodeKind(work, inputs, {}, "com.microsoft")


def nbits(rows: int, k: int, n: int, bits: int, block: int) -> NodeKind:
    """``MatMulNBits``."""
    blocks = -(-k // block)
    codes = Fed("uint8", (n, blocks, block * bits // 8), "packed")
    attributes = {"N": n, "K": k, "bits": bits, "block_size": block, "accuracy_level": 4}
    inputs = (_rows(rows, k), codes, Fed("float32", (n, blocks), "packed"))
    return NodeKind(nbits_product(rows, k, n, bits, block), inputs, attributes, "com.microsoft")


_NAMES = {"float32": "", "float16": "16", "int8": "8", "uint8": "4"}


def attention(
    cache: str, rows: int, past: int, heads: int, kv_heads: int, dim: int, *, standard: bool = False
) -> NodeKind:
    """Attention over a cache: edgepress's own, or ``GroupQueryAttention`` over float32 and int8."""
    op = "GroupQueryAttention" if standard else f"CachedAttention{_NAMES[cache]}"
    total, codes = past + rows, cache in ("int8", "uint8")
    held = Fed(cache, (1, kv_heads, -(-total // 16) * 16, dim // 2 if cache == "uint8" else dim), "cache")
    table = Fed("float32", (total, dim // 2))
    query = Fed("float32", (1, rows, (heads + 2 * kv_heads) * dim))
    inputs: list[Fed | None] = [query, None, None, held, held, Fed("int32", (1,), last=total - 1)]
    inputs += [Fed("int32", (), last=total), table, table]
    if codes:
        scale = Fed("float32", (1, kv_heads, 1, dim))
        inputs += [None, None, None, scale, scale]
    elif standard:
        inputs += [None, None, Fed("float32", (heads,), last=-1e30)]
    attributes: dict[str, int | float | str] = {"num_heads": heads, "kv_num_heads": kv_heads, "do_rotary": 1}
    attributes |= {"local_window_size": -1, "scale": 1.0 if standard and not codes else dim**-0.5}
    if standard and codes:
        attributes |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
    work = cached_attention(op, cache, rows, past, heads, kv_heads, dim)
    return NodeKind(work, tuple(inputs), attributes, "com.microsoft" if standard else "edgepress", 3, op)


def texts(count: int, length: int, heads: int, dim: int, *, exact: bool) -> NodeKind:
    """``EncoderAttention`` of ``count`` texts."""
    tokens = count * length
    inputs = (_rows(tokens, 3 * heads * dim), Fed("int64", (count + 1,), last=length, steps=True))
    attributes = {"num_heads": heads, "scale": dim**-0.5, "exact": int(exact)}
    work = encoder_attention(tokens, length, heads, dim, exact=exact)
    return NodeKind(work, inputs, attributes, "edgepress")


def standard_texts(count: int, length: int, heads: int, dim: int) -> NodeKind:
    """``Attention`` of ``count`` texts with a mask."""
    rows = Fed("float32", (count, length, heads * dim))
    first = Fed("float32", (count, length, heads * dim), "own")
    mask = Fed("float32", (count, 1, length, length), last=0.0)
    attributes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": dim**-0.5}
    work = plain_attention(count * length, length, heads, dim)
    return NodeKind(work, (first, rows, rows, mask), attributes)


def norm(op: str, rows: int, width: int) -> NodeKind:
    """A norm of rows, with the sum before it where the operator has one."""
    row, scale = _own_row(rows, width), Fed("float32", (width,))
    if op == "SumNorm":
        inputs = (scale, scale, row, row, scale)
        return NodeKind(by_rows(op, rows, width, 3), inputs, {"epsilon": 1e-5}, "edgepress")
    if op == "RootMeanSquareNorm":
        return NodeKind(by_rows(op, rows, width, 2), (scale, row), {"epsilon": 1e-5}, "edgepress")
    if op == "SumRootMeanSquareNorm":
        work = by_rows(op, rows, width, 4)
        return NodeKind(work, (scale, row, row), {"epsilon": 1e-5}, "edgepress", 2)
    if op == "SkipSimplifiedLayerNormalization":
        work = by_rows(op, rows, width, 4)
        return NodeKind(work, (row, row, scale), {"epsilon": 1e-5}, "com.microsoft", 4)
    bias = (scale,) if op == "LayerNormalization" else ()
    extra = {} if bias else {"stash_type": 1}
    attributes: Attributes = {"axis": -1, "epsilon": 1e-5, **extra}
    return NodeKind(by_rows(op, rows, width, 2), (row, scale, *bias), attributes)


# Operators on each number alone, with their inputs: of the size of the rows, or of one of them.
_ELEMENTWISE = {
    "Add": ("", 2, 0),
    "Mul": ("", 2, 0),
    "Sum": ("", 2, 0),
    "Gelu": ("com.microsoft", 1, 0),
    "QuickGelu": ("com.microsoft", 1, 0),
    "FastGelu": ("com.microsoft", 1, 1),
    "BiasGelu": ("com.microsoft", 1, 1),
}
ELEMENTWISE = tuple(_ELEMENTWISE)


def elementwise(op: str, rows: int, width: int) -> NodeKind:
    """An activation function or a sum."""
    domain, whole, single = _ELEMENTWISE[op]
    inputs = (*[_own_row(rows, width)] * whole, *[Fed("float32", (width,))] * single)
    attributes: Attributes = {"alpha": 1.0} if op == "QuickGelu" else {}
    return NodeKind(by_rows(op, rows, width, whole + 1), inputs, attributes, domain)


TABLE_ROWS = 4096


def lookup(op: str, rows: int, width: int) -> NodeKind:
    """Rows of a table by their ids."""
    ids = Fed("int64", (1, rows), last=TABLE_ROWS - 1)
    if op == "Gather":
        table = Fed("float32", (TABLE_ROWS, width), "own")
        return NodeKind(by_rows(op, rows, width), (table, ids), {"axis": 0})
    product = quantized_product(1, width, TABLE_ROWS, 8, group=32)
    attributes = {"N": TABLE_ROWS, "K": width, "bits": 8, "group": 32}
    attributes |= {"shared": 1, "zero_points": 0, "scale_bits": 16}
    table = Fed("uint8", (product.read,), "own")
    return NodeKind(by_rows(op, rows, width), (table, ids), attributes, "edgepress")


def embeddings(rows: int, width: int) -> NodeKind:
    """``EncoderEmbeddings``: the norm of the sum of three rows, of which one is of 8-bit codes."""
    scale, ids = Fed("float32", (width,)), Fed("int64", (rows,), last=1)
    codes = Fed("uint8", (TABLE_ROWS, width), "own")
    scales = Fed("float32", (TABLE_ROWS, width // 32))
    table = Fed("float32", (2, width))
    words = Fed("int64", (rows,), last=TABLE_ROWS - 1)
    inputs = (scale, scale, words, ids, ids, codes, scales, table, table)
    return NodeKind(by_rows("EncoderEmbeddings", rows, width), inputs, {"epsilon": 1e-5}, "edgepress")
