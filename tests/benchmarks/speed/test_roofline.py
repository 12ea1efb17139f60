"""Ten planted impossibilities, the ceiling under the best bandwidth seen, and bytes of single kernels."""

from typing import Any

import pytest
from edgepress.benchmarks.records.summary import summarize
from edgepress.benchmarks.speed import roofline
from edgepress.benchmarks.speed.roofline import (
    Roofline,
    best,
    impossible,
    kv_bytes,
    measure_both,
    tokens_by_run,
    weight_bytes,
)
from edgepress.benchmarks.speed.trace import Kernel
from edgepress.devices.bandwidth import SMALLEST, Bandwidth
from edgepress.runtime.bundle.graph_file import GraphFile, Node, Weight


def rate(gb_per_second: float, working_set: int = 1 << 28) -> Bandwidth:
    return Bandwidth(gb_per_second * 1e9, working_set, 2, (gb_per_second * 1e9,))


@pytest.mark.parametrize("factor", [1.051, 1.06, 1.1, 1.2, 1.5, 2, 3, 10, 100, 1e6])
def test_planted_impossibilities_are_found(factor: float) -> None:
    ceiling = 377.0
    reason = impossible(factor * ceiling, ceiling)
    assert reason is not None and reason.startswith("impossible")


@pytest.mark.parametrize("factor", [0.01, 0.5, 0.9, 1.0, 1.05])
def test_possible_rates_pass(factor: float) -> None:
    assert impossible(factor * 377.0, 377.0) is None


def test_no_rate_is_not_impossible() -> None:
    assert impossible(None, 1.0) is None


def test_the_ceiling_is_bandwidth_over_bytes() -> None:
    roof = Roofline(80_000_000, at_weights=rate(40), at_memory=rate(30))
    assert roof.ceiling == 500
    recorded = roof.describe(summarize([240.0, 250.0, 260.0], "tok/s", "higher"))
    assert recorded["fraction"] == 0.5
    assert recorded["ceiling_tps"] == 500
    assert recorded["bandwidth_of_memory"]["gb_per_second"] == 30


def test_noise_lowers_bandwidth_so_the_best_counts() -> None:
    roof = best([(rate(22), rate(20)), (rate(60), rate(35)), (rate(31), rate(40))], 1_000_000)
    assert (roof.at_weights.bytes_per_second, roof.at_memory.bytes_per_second) == (60e9, 40e9)


@pytest.mark.parametrize(
    ("weights", "asked"),
    [(76 << 20, [256 << 20, 76 << 20]), (1000, [256 << 20, SMALLEST]), (4 << 30, [256 << 20])],
)
def test_working_sets(weights: int, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights' own size is measured beside main memory; larger weights are main memory."""
    seen: list[int] = []

    def fake(working_set: int, *, threads: int) -> Bandwidth:
        seen.append(working_set)
        return rate(10, working_set)

    monkeypatch.setattr(roofline, "measure_bandwidth", fake)
    at_weights, at_memory = measure_both(weights, 32 << 20, threads=1)
    assert seen == asked
    assert at_memory.working_set == 256 << 20
    assert at_weights.working_set == asked[-1]
    seen.clear()
    again, same = measure_both(weights, 32 << 20, threads=1, known=at_memory)
    assert seen == asked[-1:], "memory's own is measured once"
    assert (again.working_set, same.working_set) == (at_weights.working_set, 256 << 20)


def kernel(op: str, *inputs: tuple[str, tuple[int, ...]], run: int = 1, **fields: Any) -> Kernel:
    return Kernel("n", op, "CPUExecutionProvider", 1.0, run, inputs, **fields)


def graph(op: str, inputs: tuple[str, ...] = (), weights: dict[str, Weight] | None = None, **attributes: int):
    return GraphFile({"n": Node(op, inputs, attributes)}, weights or {})


# Bytes a weight that the packed kernel reads: bits / 8, a float32 scale and a float32 sum a block.
PACKED = [(8, 32, 1.25), (8, 128, 1.0625), (4, 32, 0.75), (4, 64, 0.625), (4, 128, 0.5625), (2, 64, 0.375)]


@pytest.mark.parametrize("bits, block, per_weight", PACKED)
def test_packed_weights(bits: int, block: int, per_weight: float) -> None:
    known = graph("MatMulNBits", N=96, K=512, bits=bits, block_size=block, accuracy_level=4)
    assert weight_bytes(kernel("MatMulNBits"), known) == 96 * 512 * per_weight


def test_float_activations_need_no_block_sums_and_a_last_block_is_whole() -> None:
    known = graph("MatMulNBits", N=10, K=100, bits=4, block_size=32, accuracy_level=0)
    assert weight_bytes(kernel("MatMulNBits"), known) == 10 * 4 * (16 + 4)


def test_a_lookup_reads_the_rows_that_it_returns() -> None:
    known = graph("Gather", ("table", "ids"), {"table": Weight((1000, 64), 32)})
    assert weight_bytes(kernel("Gather", output_bytes=5 * 64 * 4), known) == 5 * 64 * 4
    # An index into a shape: the only weight is the index itself.
    known = graph("Gather", ("shape", "one"), {"one": Weight((), 64)})
    assert weight_bytes(kernel("Gather", output_bytes=8), known) == 8


def test_other_operators_read_their_weights_whole() -> None:
    weights = {"w": Weight((64, 32), 8), "s": Weight((32,), 32), "elsewhere": Weight((9, 9), 32)}
    known = graph("MatMulIntegerToFloat", ("x", "w", "", "s"), weights)
    assert weight_bytes(kernel("MatMulIntegerToFloat"), known) == 64 * 32 + 4 * 32
    # Of two forms of a product, which the runtime names anew: its input and output say how large it is.
    chosen = kernel("MatMulIntegerToFloat", ("uint8", (2, 5, 64)), output_bytes=2 * 5 * 32 * 4)
    assert weight_bytes(chosen, GraphFile()) == 64 * 32
    made = kernel("FusedGemm", parameter_bytes=77)
    assert weight_bytes(made, GraphFile()) == 77


@pytest.mark.parametrize(
    "kind, width, item", [("float", 16, 4), ("float16", 16, 2), ("int8", 16, 1), ("uint8", 8, 1)]
)
def test_attention_reads_what_is_cached_and_appends(kind: str, width: int, item: int) -> None:
    cache, scale = (kind, (1, 3, 256, width)), ("float", (1, 3, 1, 16))
    prefill = kernel("GroupQueryAttention", ("float", (1, 40, 160)), cache, cache, scale, scale)
    step = kernel("GroupQueryAttention", ("float", (1, 1, 160)), cache, cache, run=2)
    cached = tokens_by_run([step, prefill])
    assert cached == {1: 40, 2: 41}
    position = 2 * 3 * width * item
    assert kv_bytes(prefill, graph("GroupQueryAttention"), cached) == position * 80
    assert kv_bytes(step, graph("GroupQueryAttention"), cached) == position * 42
    assert weight_bytes(step, graph("GroupQueryAttention", ("q", "cos"), {"cos": Weight((512, 8), 32)})) == 0


def test_a_window_bounds_what_attention_reads() -> None:
    cache = ("float", (2, 1, 64, 8))
    step = kernel("GroupQueryAttention", ("float", (2, 1, 24)), cache, cache, run=9)
    known = graph("GroupQueryAttention", local_window_size=16)
    assert kv_bytes(step, known, {9: 50}) == 2 * 2 * 8 * 4 * (16 + 1)
    assert kv_bytes(kernel("Add"), known, {}) == 0
