"""The acceptance test of ``export --require-faster``: a bundle must beat the same model in float32 here.

The two are measured interleaved as ``profile`` does; a decoder is judged by its decoding, an encoder by its
throughput. A failure lists what the graph, the CPU and a trace say about its cause.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...devices.probe import probe
from ...errors import GateFailed
from ...export.graph.linear.nbits import NATIVE_BLOCKS
from ...runtime.bundle.bundle import Bundle
from ...runtime.bundle.graph_file import GraphFile, Node
from ...terminal.progress import Progress
from ..records.record import Measurement
from .profile import profile_bundle
from .protocol import Protocol

PROMPT_TOKENS = 64
NEW_TOKENS = 64
BATCH = 8


def require_faster(
    bundle: Path,
    baseline: Path,
    *,
    protocol: Protocol | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Measurement:
    """Measure ``bundle`` against ``baseline``, the same model in float32.

    Returns:
        The bundle's line, which says how much faster it is.
    """
    opened = Bundle.open(bundle)
    line = profile_bundle(
        bundle,
        baseline=baseline,
        protocol=protocol or Protocol.quick(),
        command=command,
        progress=progress,
        energy=False,
        **_work(opened),
    )
    assert line.compare is not None, "a baseline was given"
    if line.compare["verdict"] != "faster" or line.validity.status == "invalid":
        raise _failure(line, _reasons(opened, line))
    return line


def _work(bundle: Bundle) -> dict[str, Any]:
    """A short piece of the kind's work that fits the model."""
    if bundle.kind == "encoder":
        return {"prompt_tokens": min(PROMPT_TOKENS, bundle.encoder.max_length), "batch": BATCH}
    half = bundle.decoder.context_length // 2
    return {"prompt_tokens": min(PROMPT_TOKENS, half), "new_tokens": min(NEW_TOKENS, half)}


def _reasons(bundle: Bundle, line: Measurement) -> list[str]:
    cpu = probe().cpu
    return slow_reasons(
        GraphFile.read(bundle.graph),
        isa=cpu.isa,
        machine=cpu.machine,
        cache_bytes=cpu.last_level_cache_bytes,
        float_bytes=4 * (line.subject.params or 0),
        time_by_op=line.time_by_op,
    )


def _failure(line: Measurement, reasons: Sequence[str]) -> GateFailed:
    compare: dict[str, Any] = line.compare or {}
    ratio = compare["ratio_median"]
    if line.validity.status == "invalid" or compare["verdict"] == "invalid":
        doubts = [compare["reason"] or "; ".join(line.validity.reasons)]
        measured = "" if ratio is None else f" ({ratio:.2f} × in the median)"
        what = f"{line.subject.scheme} could not be shown to be faster than float32 here{measured}"
        return GateFailed(
            what,
            why="; ".join([*doubts, *reasons]),
            fix="run it again on a quiet machine, or leave out --require-faster",
        )
    what = f"{line.subject.scheme} is not faster than float32 here: {ratio:.2f} × its {compare['metric']}"
    return GateFailed(
        what,
        why="; ".join(reasons) or "nothing in the graph or the CPU explains it",
        fix="choose another scheme, see where the time goes with edgepress profile --per-op, "
        "or leave out --require-faster",
    )


_OWN = "QuantizedProduct"
# Operators that read weights; the rest of the time no number of bits makes shorter.
PRODUCTS = (
    *("MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat"),
    *(_OWN, "RoutedProduct", "IntegerProduct"),
)
INT8_ACTIVATIONS = 4
SMALL_BLOCK = 32
FEW_IN_PRODUCTS = 0.5
_BLOCK_BYTES = 8  # beside the codes of a group of MatMulNBits
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
    integer = ("MatMulNBits", "MatMulIntegerToFloat", _OWN, "IntegerProduct")
    if not any(node.op in integer for node in graph.nodes.values()):
        return
    known, x86 = set(isa), machine.lower() in _X86
    if x86 and "avx2" not in known:
        yield "this CPU has no AVX2, which the integer kernels need"
    elif x86 and not known & {"avx512_vnni", "avx_vnni"}:
        yield "this CPU has no VNNI: its 8-bit products take two more instructions"
    elif not x86 and isa and "asimddp" not in known:
        yield "this CPU has no dot product instructions, which the integer kernels need"


def _left_in_float(graph: GraphFile) -> Iterator[str]:
    products = [node.op for node in graph.first_forms().values() if node.op in PRODUCTS]
    floats = sum(op in ("MatMul", "FusedMatMul", "Gemm") for op in products)
    if floats * 2 > len(products):
        yield f"{floats} of {len(products)} products are in float32"


def _small_blocks(graph: GraphFile) -> Iterator[str]:
    sizes = [_stored(node) for node in graph.nodes.values() if node.op in ("MatMulNBits", _OWN)]
    small = [size for size in sizes if size[1] <= SMALL_BLOCK]
    if small:
        bits, block, beside = small[0]
        yield (
            f"groups of {block} are small: the kernel reads {bits + 8 * beside / block:g} bits a weight "
            f"where the codes have {bits}"
        )


def _stored(product: Node) -> tuple[int, int, int]:
    """Bits of a code, the size of its group, and the bytes that each group takes beside its codes."""
    attributes = product.attributes
    if product.op == _OWN:
        beside = attributes["scale_bits"] // 8 + attributes["zero_points"]
        return attributes["bits"], attributes["group"] * attributes["shared"], beside
    return attributes["bits"], attributes["block_size"], _BLOCK_BYTES


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
