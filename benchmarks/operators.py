"""Where the time goes: ONNX Runtime's per-operator trace of one run, summed by operator type.

The trace comes from a separate, short run, because writing it costs time at every node: the shares are
good, the milliseconds are those of the instrumented run. The trace also proves where each node ran.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

from ..errors import GateFailed

_KERNEL = "_kernel_time"


def read_trace(events: list[dict[str, Any]], graph_runs: tuple[int, int]) -> dict[str, Any]:
    """Sum the last unit of work in a trace.

    Args:
        events: ONNX Runtime's profile, times in microseconds.
        graph_runs: how often the work runs the graph in its first phase (prefill, or the batch), and in all.

    Returns:
        ``{"time_by_op": [{"op", "ms", "share", "nodes", "first_phase_ms"}, …], "nodes_by_provider":
        {name: nodes}}``, operators by falling time; ``nodes`` are distinct nodes of the graph.

    Raises:
        GateFailed: the trace has fewer runs of the graph than the work needs.
    """
    first, total = graph_runs
    runs = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    if len(runs) < total:
        raise GateFailed(f"the runtime's trace has {len(runs)} runs of the graph, {total} are needed")
    starts = runs[-total:]
    time_us: dict[str, float] = defaultdict(float)
    first_us: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    providers: dict[str, set[str]] = defaultdict(set)
    for event in events:
        name, details = str(event.get("name", "")), event.get("args", {})
        phase = bisect_right(starts, event.get("ts", 0))
        if event.get("cat") != "Node" or not name.endswith(_KERNEL) or phase == 0:
            continue
        operator = str(details.get("op_name", "?"))
        time_us[operator] += event["dur"]
        first_us[operator] += event["dur"] if phase <= first else 0
        nodes[operator].add(name)
        providers[str(details.get("provider", "?"))].add(name)
    return {
        "time_by_op": _table(time_us, first_us, nodes),
        "nodes_by_provider": {provider: len(names) for provider, names in sorted(providers.items())},
    }


def _table(
    time_us: dict[str, float], first_us: dict[str, float], nodes: dict[str, set[str]]
) -> list[dict[str, Any]]:
    total = sum(time_us.values())
    return [
        {
            "op": operator,
            "ms": spent / 1000,
            "share": spent / total if total else 0.0,
            "nodes": len(nodes[operator]),
            "first_phase_ms": first_us[operator] / 1000,
        }
        for operator, spent in sorted(time_us.items(), key=lambda item: (-item[1], item[0]))
    ]
