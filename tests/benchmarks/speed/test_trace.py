"""Kernels from a made-up profile: the last unit alone, and the time of a subgraph counted once."""

from __future__ import annotations

from typing import Any

import pytest
from edgepress.benchmarks.speed.trace import read_kernels, read_units
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
