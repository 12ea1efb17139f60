"""Why a quantized graph may be no faster than its float32 twin: what its file, the CPU and a trace tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ...export.graph.linear.layout import NATIVE_BLOCKS
from ...runtime.bundle.graph_file import GraphFile, Node

# Operators that read weights; the rest of the time no number of bits makes shorter.
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat")
INT8_ACTIVATIONS = 4
SMALL_BLOCK = 32
FEW_IN_PRODUCTS = 0.5
_BLOCK_BYTES = 8
_X86 = ("x86_64", "amd64", "i386", "i686")


def slow_reasons(
    graph: GraphFile,
    *,
    isa: Sequence[str],
    machine: str,
    cache_bytes: int | None,
    float_bytes: int,
    time_by_op: Sequence[dict[str, Any]],
) -> list[str]:
    """Sentences without a full stop, the likeliest cause first.

    Args:
        isa, machine, cache_bytes: of the CPU, as the probe reads them.
        float_bytes: of the weights in float32.
        time_by_op: the trace of the quantized graph, as a measurement has it.
    """
    return [
        *_no_kernel(graph),
        *_no_instructions(graph, isa, machine),
        *_left_in_float(graph),
        *_small_blocks(graph),
        *_cached(float_bytes, cache_bytes),
        *_elsewhere(time_by_op),
    ]


def _packed(graph: GraphFile) -> list[Node]:
    return [node for node in graph.nodes.values() if node.op == "MatMulNBits"]


def _no_kernel(graph: GraphFile) -> Iterator[str]:
    packed = _packed(graph)
    floats = [node for node in packed if node.attributes.get("accuracy_level", 0) != INT8_ACTIVATIONS]
    if floats:
        yield f"{len(floats)} of {len(packed)} products compute on float activations (their accuracy level)"
    shapes = Counter((node.attributes["bits"], node.attributes["block_size"]) for node in packed)
    for (bits, block), count in sorted(shapes.items()):
        if block not in NATIVE_BLOCKS.get(bits, ()):
            yield f"there is no integer kernel for {bits} bits in groups of {block} ({count} products)"


def _no_instructions(graph: GraphFile, isa: Sequence[str], machine: str) -> Iterator[str]:
    if not any(node.op in ("MatMulNBits", "MatMulIntegerToFloat") for node in graph.nodes.values()):
        return
    known, x86 = set(isa), machine.lower() in _X86
    if x86 and "avx2" not in known:
        yield "this CPU has no AVX2, which the integer kernels need"
    elif x86 and not known & {"avx512_vnni", "avx_vnni"}:
        yield "this CPU has no VNNI: its 8-bit products take two more instructions"
    elif not x86 and isa and "asimddp" not in known:
        yield "this CPU has no dot product instructions, which the integer kernels need"


def _left_in_float(graph: GraphFile) -> Iterator[str]:
    products = [node.op for node in graph.nodes.values() if node.op in PRODUCTS]
    floats = sum(op in ("MatMul", "FusedMatMul", "Gemm") for op in products)
    if floats * 2 > len(products):
        yield f"{floats} of {len(products)} products are in float32"


def _small_blocks(graph: GraphFile) -> Iterator[str]:
    small = [node for node in _packed(graph) if node.attributes["block_size"] <= SMALL_BLOCK]
    if small:
        bits, block = small[0].attributes["bits"], small[0].attributes["block_size"]
        real = bits + 8 * _BLOCK_BYTES / block
        yield (
            f"groups of {block} are small: the kernel reads {real:g} bits a weight "
            f"where the codes have {bits}"
        )


def _cached(float_bytes: int, cache_bytes: int | None) -> Iterator[str]:
    if cache_bytes and 0 < float_bytes <= cache_bytes:
        yield (
            f"the {float_bytes / 1e6:.1f} MB of float32 weights fit the cache of {cache_bytes / 1e6:.1f} MB, "
            "where reading fewer bytes gains little"
        )


def _elsewhere(time_by_op: Sequence[dict[str, Any]]) -> Iterator[str]:
    share = sum(row["share"] for row in time_by_op if row["op"] in PRODUCTS)
    if time_by_op and share < FEW_IN_PRODUCTS:
        yield f"matrix products are only {100 * share:.0f} % of the time"
