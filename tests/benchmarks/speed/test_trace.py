"""Kernels from a made-up profile: the last unit alone, and the time of a subgraph counted once."""

from typing import Any

import pytest
from edgepress.benchmarks.speed.trace import read_kernels, read_units, summed
from edgepress.errors import GateFailed


def node(name: str, op: str, ts: int, dur: int, **details: Any) -> dict[str, Any]:
    args = {"op_name": op, "provider": "CPUExecutionProvider", **details}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 1000}


def test_a_subgraph_is_counted_once() -> None:
    events = [
        run(0),
        node("before", "Add", 0, 10),
        node("outer", "If", 10, 500),
        node("inner", "If", 20, 300),
        node("deep", "MatMul", 30, 200),
        node("beside", "Mul", 330, 100),
        node("after", "Add", 510, 7),
    ]
    found = {kernel.node: kernel.ms for kernel in read_kernels(events, 1)}
    assert found == pytest.approx(
        {"before": 0.01, "outer": 0.1, "inner": 0.1, "deep": 0.2, "beside": 0.1, "after": 0.007}
    )
    assert sum(found.values()) == pytest.approx(0.517)


def test_runs_are_numbered_within_the_unit() -> None:
    events = [node("a", "Add", 5, 1), run(0), run(100), node("a", "Add", 105, 2), run(200)]
    events.append(node("a", "Add", 205, 3))
    assert [(kernel.run, kernel.ms) for kernel in read_kernels(events, 2)] == [(1, 0.002), (2, 0.003)]
    with pytest.raises(GateFailed, match="3 runs"):
        read_kernels(events, 4)


def test_units_have_runs_of_their_own() -> None:
    events = [
        run(0),
        *(event for at in range(100, 700, 100) for event in (run(at), node("a", "Add", at, at))),
    ]
    found = [[(kernel.run, kernel.ms) for kernel in unit] for unit in read_units(events, 2, 3)]
    assert found == [[(1, 0.1), (2, 0.2)], [(1, 0.3), (2, 0.4)], [(1, 0.5), (2, 0.6)]]
    with pytest.raises(GateFailed, match="7 runs"):
        read_units(events, 2, 4)


def test_shapes_and_sizes_are_kept() -> None:
    shapes = [{"float": [1, 7, 64]}, {}, {"uint8": [2, 3]}]
    details = {"input_type_shape": shapes, "parameter_size": "12", "output_size": "40"}
    [kernel] = read_kernels([run(0), node("a", "Gather", 1, 1, **details)], 1)
    assert kernel.inputs == (("float", (1, 7, 64)), ("uint8", (2, 3)))
    assert (kernel.parameter_bytes, kernel.output_bytes) == (12, 40)


def profiled(name: str, op: str, ts: int, dur: int, provider: str = "CPUExecutionProvider") -> dict[str, Any]:
    args = {"op_name": op, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def profiled_run(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 100}


# A load, a warming unit of two runs, then the unit that counts: runs at 1000 (prefill), 1200 and 1400.
TRACE: list[dict[str, Any]] = [
    {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 9},
    profiled_run(100),
    profiled("warm", "MatMul", 101, 5000),
    profiled_run(300),
    profiled_run(1000),
    profiled("a", "MatMulNBits", 1001, 600),
    profiled("b", "Softmax", 1002, 100),
    {"cat": "Node", "name": "a_fence_before", "ts": 1003, "dur": 999, "args": {"op_name": "MatMulNBits"}},
    profiled_run(1200),
    profiled("a", "MatMulNBits", 1201, 200),
    profiled_run(1400),
    profiled("a", "MatMulNBits", 1401, 50),
    profiled("c", "MatMulNBits", 1402, 50, "CUDAExecutionProvider"),
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
    numbers = profiled("c", "Softmax", 1403, 10)
    numbers["args"]["input_type_shape"] = [{"float16": [1, 4]}]
    masks = profiled("d", "ReduceSum", 1404, 10)
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
