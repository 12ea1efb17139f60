"""ONNX Runtime's profile as kernels (which node ran, when, where, how long, on what shapes), and summed.

The time of a node that runs a subgraph (``If``) is its own: what its inner nodes took is taken off.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import GateFailed

_KERNEL = "_kernel_time"
_NESTING = frozenset({"If", "Loop", "Scan"})

_FLOATING = frozenset({"float", "float16", "bfloat16", "double"})

Shape = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kernel:
    """One execution of a node.

    Attributes:
        run: of the graph within the unit of work, from 1.
        inputs: element type and shape of the inputs that are there; weights that the runtime has repacked are
            not.
        parameter_bytes: of the weights among them.
        output_bytes: of what it made.
    """

    node: str
    op: str
    provider: str
    ms: float
    run: int
    inputs: tuple[Shape, ...] = ()
    parameter_bytes: int = 0
    output_bytes: int = 0

    @property
    def computes(self) -> bool:
        """Whether it reads floating numbers: what it does is not about shapes, masks and ids alone."""
        return any(kind in _FLOATING for kind, _ in self.inputs)


def read_kernels(events: Sequence[dict[str, Any]], runs: int) -> list[Kernel]:
    """The kernels of the last ``runs`` runs of the graph in a profile, whose times are microseconds."""
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    if len(starts) < runs:
        raise GateFailed(f"the runtime's trace has {len(starts)} runs of the graph, {runs} are needed")
    starts = starts[-runs:]
    found = [event for event in events if _is_kernel(event) and event["ts"] >= starts[0]]
    inner = _time_of_inner_nodes(found)
    return [
        _kernel(event, bisect_right(starts, event["ts"]), event["dur"] - inner.get(index, 0))
        for index, event in enumerate(found)
    ]


def read_units(events: Sequence[dict[str, Any]], runs: int, units: int) -> list[list[Kernel]]:
    """The kernels of the last ``units`` units of work in a profile, each of ``runs`` runs of the graph."""
    found: list[list[Kernel]] = [[] for _ in range(units)]
    for kernel in read_kernels(events, runs * units):
        unit, run = divmod(kernel.run - 1, runs)
        found[unit].append(replace(kernel, run=run + 1))
    return found


def _is_kernel(event: dict[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL)


def _kernel(event: dict[str, Any], run: int, microseconds: int) -> Kernel:
    details = event.get("args", {})
    shapes = [next(iter(entry.items())) for entry in details.get("input_type_shape", []) if entry]
    return Kernel(
        node=str(event["name"]).removesuffix(_KERNEL),
        op=str(details.get("op_name", "?")),
        provider=str(details.get("provider", "?")),
        ms=microseconds / 1000,
        run=run,
        inputs=tuple((kind, tuple(shape)) for kind, shape in shapes),
        parameter_bytes=int(details.get("parameter_size", 0)),
        output_bytes=int(details.get("output_size", 0)),
    )


def _time_of_inner_nodes(events: Sequence[dict[str, Any]]) -> dict[int, int]:
    """Microseconds of the nodes directly inside each node that runs a subgraph, by index."""
    inner: dict[int, int] = {}
    open_nodes: list[int] = []
    for index in sorted(range(len(events)), key=lambda index: (events[index]["ts"], -events[index]["dur"])):
        event = events[index]
        while open_nodes and event["ts"] >= _end(events[open_nodes[-1]]):
            open_nodes.pop()
        if open_nodes:
            inner[open_nodes[-1]] = inner.get(open_nodes[-1], 0) + event["dur"]
        if event.get("args", {}).get("op_name") in _NESTING:
            open_nodes.append(index)
    return inner


def _end(event: dict[str, Any]) -> int:
    return int(event["ts"]) + int(event["dur"])


def summed(kernels: Sequence[Kernel], first: int) -> dict[str, Any]:
    """Sum one unit of work.

    Args:
        kernels: of the unit.
        first: runs of its graphs in the first phase.

    Returns:
        ``time_by_op``: ``{"op", "ms", "share", "nodes", "first_phase_ms"}`` by falling time, where ``nodes``
        are distinct nodes of the graph; ``placement``: ``{"provider", "ms", "share", "nodes", "ops",
        "computing"}``, where ``computing`` names the nodes that read more than shapes, masks and ids.
    """
    by_op = [
        {**row, "op": op, "first_phase_ms": sum(kernel.ms for kernel in group if kernel.run <= first)}
        for op, group, row in _sums(kernels, lambda kernel: kernel.op)
    ]
    placement = [
        {
            **row,
            "provider": provider,
            "ops": sorted({kernel.op for kernel in group}),
            "computing": sorted({kernel.node for kernel in group if kernel.computes}),
        }
        for provider, group, row in _sums(kernels, lambda kernel: kernel.provider)
    ]
    return {"time_by_op": by_op, "placement": placement}


def _sums(
    kernels: Sequence[Kernel], key: Callable[[Kernel], str]
) -> list[tuple[str, list[Kernel], dict[str, Any]]]:
    """Kernels in groups by falling time, with each group's milliseconds, share and number of nodes."""
    groups: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault(key(kernel), []).append(kernel)
    total = sum(kernel.ms for kernel in kernels)
    rows = []
    for name, group in groups.items():
        ms = sum(kernel.ms for kernel in group)
        nodes = len({kernel.node for kernel in group})
        rows.append((name, group, {"ms": ms, "share": ms / total if total else 0.0, "nodes": nodes}))
    return sorted(rows, key=lambda row: (-row[2]["ms"], row[0]))
