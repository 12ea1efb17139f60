"""``Operation``: the work of one node of a graph, in the terms in which a kernel table is measured and read.

What a node does is its operator, its ``form`` (bits, or the type of a cache), its features (a group size, a
gate), and its sizes along the axes of its kind. Bytes and multiply-adds follow from these; the functions here
are the only place where they are counted.
"""

from dataclasses import dataclass, replace

OUTPUTS = 16  # of a tile of edgepress's own weights
_LINE = 64
CACHE_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "uint8": 0.5}
AXES = {
    "product": ("rows", "inputs", "outputs"),
    "head": ("rows", "inputs", "outputs"),
    "step": ("context",),
    "prompt": ("rows", "past and one"),
    "rows": ("rows", "width"),
    "texts": ("texts and heads", "length"),
}
FLOAT_PRODUCT = "FusedMatMul"
# Outputs from which on a product is a head, which has few rows.
HEAD_OUTPUTS = 16384
# Rows up to which attention takes them one by one.
FEW_ROWS = 7


@dataclass(frozen=True)
class Operation:
    """One execution of a node.

    Attributes:
        op: the operator. form: what of it is another kernel: ``4`` bits, a cache of ``int8``.
        features: of its form, each a kernel's variation that costs about the same at all sizes.
        kind: a key of :data:`AXES`; ``sizes`` are along its axes.
        read: bytes of weights and cache, which may lie far away; moved: of activations, which lie near.
        work: multiply-adds.
    """

    op: str
    form: str
    kind: str
    sizes: tuple[int, ...]
    read: int
    moved: int
    work: int
    features: tuple[str, ...] = ()


def tile_bytes(
    bits: int,
    k: int,
    n: int,
    group: int,
    shared: int = 1,
    *,
    zero_points: bool = False,
    wide: bool = False,
    trellis: bool = False,
) -> int:
    """Bytes of weights ``[n, k]`` in tiles; the layout is that of ``runtime/kernels/src/product.h``."""
    step = 32 if bits in (3, 5) and not trellis else 16
    groups = -(-k // (group * shared))
    head = -(-groups * (OUTPUTS * (4 if wide else 2) + (OUTPUTS if zero_points else 0)) // _LINE) * _LINE
    return -(-n // OUTPUTS) * (head + 2 * bits * (-(-k // step) * step))


def _product_kind(outputs: int) -> str:
    return "product" if outputs < HEAD_OUTPUTS else "head"


def quantized_product(
    rows: int,
    k: int,
    n: int,
    bits: int,
    *,
    group: int = 64,
    shared: int = 1,
    zero_points: bool = False,
    gated: bool = False,
    wide: bool = False,
    trellis: bool = False,
) -> Operation:
    """``[rows, k]`` times weights ``[n, k]`` of ``bits``; ``wide`` scales are float32, codes of a ``trellis``
    are words.
    """
    features = [f"group {group}"] if group != 64 and shared == 1 else []
    features += ["trellis"] if trellis else ["channel"] if shared > 1 else []
    features += ["zero points"] if zero_points else []
    features += ["gated"] if gated else []
    features += ["wide scales"] if wide else []
    read = tile_bytes(bits, k, n, group, shared, zero_points=zero_points, wide=wide, trellis=trellis)
    moved = 4 * rows * (k + (n // 2 if gated else n))
    work = rows * k * n
    kind = _product_kind(n)
    return Operation("QuantizedProduct", str(bits), kind, (rows, k, n), read, moved, work, tuple(features))


def integer_product(
    rows: int, k: int, n: int, *, activation: bool = False, residual: bool = False
) -> Operation:
    """A product of 8-bit codes that rounds its activations, with what follows it."""
    features = [*(["activation"] if activation else []), *(["residual"] if residual else [])]
    read = -(-n // OUTPUTS) * -(-k // 4) * 64 + 8 * n
    moved = 4 * rows * (k + n * (2 if residual else 1))
    work = rows * k * n
    return Operation("IntegerProduct", "8", "product", (rows, k, n), read, moved, work, tuple(features))


def float_product(rows: int, k: int, n: int, op: str = FLOAT_PRODUCT, item: int = 4) -> Operation:
    """A product with weights of ``item`` bytes, which the runtime has packed."""
    read, moved = item * k * n, 4 * rows * (k + n)
    return Operation(op, str(8 * item), _product_kind(n), (rows, k, n), read, moved, rows * k * n)


def nbits_product(rows: int, k: int, n: int, bits: int, block: int) -> Operation:
    """The standard product with weights of ``bits`` in blocks."""
    blocks = n * -(-k // block)
    features = () if block == 32 else (f"group {block}",)
    read, moved = blocks * (block * bits // 8 + 8), 4 * rows * (k + n)
    sizes, kind = (rows, k, n), _product_kind(n)
    return Operation("MatMulNBits", str(bits), kind, sizes, read, moved, rows * k * n, features)


def cached_attention(
    op: str,
    cache: str,
    rows: int,
    past: int,
    heads: int,
    kv_heads: int,
    dim: int,
    window: int = -1,
) -> Operation:
    """Attention of ``rows`` new tokens over a cache with ``past`` before them."""
    context = past + rows
    seen = context if window < 0 else min(context, window + rows - 1)
    per_token = 2 * kv_heads * dim * CACHE_BYTES[cache]
    pairs = rows * (seen - rows) + rows * (rows + 1) // 2
    shape = f"{heads // kv_heads} of {dim}"
    few = rows <= FEW_ROWS
    sizes = (max(seen * rows * kv_heads, 1),) if few else (rows, max(seen - rows, 0) + 1)
    return Operation(
        op.rstrip("0123456789"),
        f"{cache}, {shape}",
        "step" if few else "prompt",
        sizes,
        int(per_token * seen),
        int(4 * rows * dim * (2 * heads + 2 * kv_heads)),
        2 * heads * dim * pairs,
    )


def encoder_attention(tokens: int, length: int, heads: int, dim: int, *, exact: bool) -> Operation:
    """Attention of texts of ``length`` tokens each, ``tokens`` in all."""
    form = f"{'float' if exact else 'pairs'}, {dim}"
    moved, work = 16 * tokens * heads * dim, 2 * tokens * length * heads * dim
    return Operation(
        "EncoderAttention", form, "texts", (max(tokens // length, 1) * heads, length), 0, moved, work
    )


def plain_attention(
    tokens: int, length: int, heads: int, dim: int, *, kv_heads: int | None = None
) -> Operation:
    """The standard operator for whole texts; ``kv_heads`` are as many as ``heads`` where nothing is said."""
    held = heads if kv_heads is None else kv_heads
    moved, work = 8 * tokens * (heads + held) * dim, 2 * tokens * length * heads * dim
    sizes = (max(tokens // length, 1) * heads, length)
    return Operation("Attention", f"float, {dim}", "texts", sizes, 0, moved, work)


def by_rows(op: str, rows: int, width: int, passes: int = 2, form: str = "", read: int = 0) -> Operation:
    """What works on each number of ``[rows, width]``, read and written in so many ``passes``."""
    return Operation(op, form, "rows", (rows, width), read, 4 * passes * rows * width, 0)


def in_float16(work: Operation) -> Operation:
    """The operation where activations, scales and cache are float16, as in graphs for CUDA."""
    form, read = work.form.replace("float32", "float16"), work.read // 2
    if work.op == "MatMulNBits":
        bits, (_, k, n) = int(work.form), work.sizes
        block = next((int(one.removeprefix("group ")) for one in work.features), 32)
        read = n * -(-k // block) * (block * bits // 8 + 2)
    return replace(work, form=form, read=read, moved=work.moved // 2)


# What a table's streams are made of.
STREAMED = quantized_product(1, 1024, 1024, 4)
