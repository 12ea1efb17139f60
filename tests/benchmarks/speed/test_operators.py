"""The operator table from a made-up trace, where every number is known."""

from __future__ import annotations

from typing import Any

import pytest
from edgepress.benchmarks.speed.operators import summed
from edgepress.benchmarks.speed.trace import read_kernels
from edgepress.errors import GateFailed


def node(name: str, op: str, ts: int, dur: int, provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    args = {"op_name": op, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 100}


# A load, a warming unit of two runs, then the unit that counts: runs at 1000 (prefill), 1200 and 1400.
TRACE: list[dict[str, Any]] = [
    {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 9},
    run(100),
    node("warm", "MatMul", 101, 5000),
    run(300),
    run(1000),
    node("a", "MatMulNBits", 1001, 600),
    node("b", "Softmax", 1002, 100),
    {"cat": "Node", "name": "a_fence_before", "ts": 1003, "dur": 999, "args": {"op_name": "MatMulNBits"}},
    run(1200),
    node("a", "MatMulNBits", 1201, 200),
    run(1400),
    node("a", "MatMulNBits", 1401, 50),
    node("c", "MatMulNBits", 1402, 50, "CUDAExecutionProvider"),
]


def read_trace(events: list[dict[str, Any]], runs: tuple[int, int]) -> dict[str, Any]:
    first, total = runs
    return summed(read_kernels(events, total), first)


def test_only_the_last_unit_counts() -> None:
    found = read_trace(TRACE, (1, 3))
    matmul, softmax = found["time_by_op"]
    assert (matmul["op"], matmul["nodes"], softmax["op"], softmax["nodes"]) == (
        "MatMulNBits",
        2,
        "Softmax",
        1,
    )
    assert [matmul["ms"], softmax["ms"]] == pytest.approx([0.9, 0.1])
    assert [matmul["share"], softmax["share"]] == pytest.approx([0.9, 0.1])
    assert [matmul["first_phase_ms"], softmax["first_phase_ms"]] == pytest.approx([0.6, 0.1])


def test_placement_names_the_nodes_that_read_numbers() -> None:
    numbers = node("c", "Softmax", 1403, 10)
    numbers["args"]["input_type_shape"] = [{"float16": [1, 4]}]
    masks = node("d", "ReduceSum", 1404, 10)
    masks["args"]["input_type_shape"] = [{"int64": [1, 4]}, {}]
    cpu, _ = read_trace([*TRACE, numbers, masks], (1, 3))["placement"]
    assert cpu["computing"] == ["c"]


def test_placement_names_the_operators() -> None:
    cpu, cuda = read_trace(TRACE, (1, 3))["placement"]
    assert (cpu["provider"], cpu["nodes"], cpu["ops"]) == (
        "CPUExecutionProvider",
        2,
        ["MatMulNBits", "Softmax"],
    )
    assert (cuda["provider"], cuda["nodes"], cuda["ops"]) == ("CUDAExecutionProvider", 1, ["MatMulNBits"])
    assert cuda["share"] == pytest.approx(0.05)


def test_order_of_events_does_not_matter() -> None:
    shuffled, ordered = read_trace(TRACE[::-1], (1, 3)), read_trace(TRACE, (1, 3))
    assert [row["op"] for row in shuffled["time_by_op"]] == [row["op"] for row in ordered["time_by_op"]]
    assert [row["ms"] for row in shuffled["placement"]] == pytest.approx(
        [row["ms"] for row in ordered["placement"]]
    )


def test_a_trace_that_is_too_short_is_refused() -> None:
    with pytest.raises(GateFailed, match="5 runs"):
        read_trace(TRACE, (1, 6))


def test_shares_sum_to_one() -> None:
    assert sum(row["share"] for row in read_trace(TRACE, (2, 5))["time_by_op"]) == pytest.approx(1)
