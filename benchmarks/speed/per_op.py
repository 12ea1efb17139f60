"""The account of one phase of the work: where its time goes by operator, by part and by layer, and what of it
neither the memory's bandwidth nor the arithmetic explains.

The wall time comes from a plain run, the kernels' from a traced one in the same process. What no kernel
accounts for is the runtime's and the driver's own time between nodes. Each node counts with its median over
the steps, so that one disturbed step does not speak for all.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...runtime.bundle.graph_file import GraphFile
from .roofline import fastest, kv_bytes, multiply_adds, tokens_by_run, weight_bytes
from .trace import Kernel

SHARED = "shared"


@dataclass(frozen=True)
class NodeCost:
    """What one node costs in one step of a phase: milliseconds, bytes, multiply-adds."""

    node: str
    op: str
    ms: float
    weight_bytes: int
    kv_bytes: int
    multiply_adds: int


def accounts(
    units: Sequence[Sequence[Kernel]],
    graph: GraphFile,
    first: int,
    walls: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The accounts of both phases.

    Args:
        units: the kernels of some units of the same work.
        graph: the file that was run.
        first: runs in the first phase, which is one step; each later run is one of the second.
        walls: milliseconds of the steps of each phase in plain runs, by the phase's name.

    Returns:
        By phase: ``wall_ms``, ``kernel_ms``, ``between_ms``, ``nodes``, ``weight_bytes``, ``kv_bytes``,
        ``multiply_adds``, ``compute_ms``, ``by_op``, ``by_part``, ``by_layer``; all of one step. Rows have
        ``ms``, ``share`` of the kernels' time, ``nodes``, the bytes, the multiply-adds, and what these need
        at the rate of the fastest product of their kind.
    """
    early = [[kernel for kernel in unit if kernel.run <= first] for unit in units]
    late: dict[tuple[int, int], list[Kernel]] = defaultdict(list)
    for index, unit in enumerate(units):
        for kernel in unit:
            if kernel.run > first:
                late[index, kernel.run].append(kernel)
    cached = tokens_by_run(units[0])
    costs = [_costs(steps, graph, cached) for steps in (early, late.values())]
    rates = fastest([(cost.op, cost.ms, cost.multiply_adds) for cost in phase] for phase in costs)
    return {
        name: _account(phase, median(wall), rates)
        for (name, wall), phase in zip(walls.items(), costs, strict=True)
    }


def _costs(steps: Iterable[Sequence[Kernel]], graph: GraphFile, cached: dict[int, int]) -> list[NodeCost]:
    """Of each node: the median of its time in the steps, and its mean bytes."""
    found: dict[tuple[str, str], list[tuple[float, int, int, int]]] = defaultdict(list)
    for step in steps:
        groups: dict[tuple[str, str], list[Kernel]] = defaultdict(list)
        for kernel in step:
            groups[kernel.node, kernel.op].append(kernel)
        for node, group in groups.items():
            weights = sum(weight_bytes(kernel, graph) for kernel in group)
            values = sum(kv_bytes(kernel, graph, cached) for kernel in group)
            counts = sum(map(multiply_adds, group))
            found[node].append((sum(kernel.ms for kernel in group), weights, values, counts))
    costs = []
    for (name, op), taken in found.items():
        ms, *amounts = zip(*taken, strict=True)
        costs.append(NodeCost(name, op, median(ms), *(sum(amount) // len(taken) for amount in amounts)))
    return costs


def _account(costs: Sequence[NodeCost], wall: float, rates: Mapping[str, float]) -> dict[str, Any]:
    kernel_ms = sum(cost.ms for cost in costs)
    return {
        "wall_ms": wall,
        "kernel_ms": kernel_ms,
        "between_ms": wall - kernel_ms,
        "nodes": len(costs),
        **_amounts(costs, rates),
        "by_op": _rows(costs, rates, lambda cost: {"op": cost.op}),
        "by_part": _rows(costs, rates, lambda cost: {"part": place(cost.node)[1], "op": cost.op}),
        "by_layer": _rows(costs, rates, lambda cost: {"layer": place(cost.node)[0]}, by_time=False),
    }


def _amounts(costs: Sequence[NodeCost], rates: Mapping[str, float]) -> dict[str, Any]:
    """What the nodes move and compute, and the time that their products need."""
    return {
        "weight_bytes": sum(cost.weight_bytes for cost in costs),
        "kv_bytes": sum(cost.kv_bytes for cost in costs),
        "multiply_adds": sum(cost.multiply_adds for cost in costs),
        "compute_ms": sum(cost.multiply_adds / rates[cost.op] for cost in costs if cost.op in rates),
    }


def _rows(
    costs: Iterable[NodeCost],
    rates: Mapping[str, float],
    key: Callable[[NodeCost], dict[str, str]],
    *,
    by_time: bool = True,
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[NodeCost]] = defaultdict(list)
    names: dict[tuple[str, ...], dict[str, str]] = {}
    for cost in costs:
        named = key(cost)
        names[tuple(named.values())] = named
        groups[tuple(named.values())].append(cost)
    total = sum(cost.ms for group in groups.values() for cost in group)
    rows: list[dict[str, Any]] = [
        {
            **names[group],
            "ms": sum(cost.ms for cost in members),
            "share": sum(cost.ms for cost in members) / total if total else 0.0,
            "nodes": len(members),
            **_amounts(members, rates),
        }
        for group, members in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"] if by_time else _number(row["layer"]))


def _number(layer: str) -> float:
    """Where a layer stands: behind all those with a number if it has none. The first node of a late layer may
    run before any of the first.
    """
    last = layer.rpartition(".")[2]
    return int(last) if last.isdecimal() else math.inf


def place(node: str) -> tuple[str, str]:
    """The layer and the part in a node's name: ``model.layers.3.mlp.down_proj`` is ``mlp.down_proj``
    of ``model.layers.3``. Nodes outside the layers are ``shared``.
    """
    words = node.split(".")
    index = next((position for position, word in enumerate(words[:-1]) if word.isdigit()), None)
    if index is not None:
        return ".".join(words[: index + 1]), ".".join(words[index + 1 :])
    return SHARED, node


def with_bandwidth(found: dict[str, Any], bytes_per_second: float | None) -> dict[str, Any]:
    """The accounts with, in each row, ``gb_per_second``, ``fraction`` of the time that its roof explains, and
    ``missing_ms``, the rest. The roof is what takes longer: its bytes at the measured bandwidth, or its
    products at the rate of the fastest of their kind. Null where no bandwidth was measured.
    """
    return {name: _phase_with_bandwidth(phase, bytes_per_second) for name, phase in found.items()}


def _phase_with_bandwidth(phase: dict[str, Any], bytes_per_second: float | None) -> dict[str, Any]:
    rates = {**phase, **_rate(phase, phase["wall_ms"], bytes_per_second)}
    for key in ("by_op", "by_part", "by_layer"):
        rates[key] = [{**row, **_rate(row, row["ms"], bytes_per_second)} for row in phase[key]]
    return rates


def _rate(row: dict[str, Any], ms: float, bytes_per_second: float | None) -> dict[str, float | None]:
    moved = row["weight_bytes"] + row["kv_bytes"]
    rate = moved / ms * 1e3 if ms > 0 and moved else None
    needed = None
    if bytes_per_second:
        needed = max(moved / bytes_per_second * 1e3, row["compute_ms"])
    return {
        "gb_per_second": None if rate is None else rate / 1e9,
        "fraction": needed / ms if needed and ms > 0 else None,
        "missing_ms": None if needed is None else ms - needed,
    }
