"""Where the time goes: ONNX Runtime's per-operator trace of one run, summed by operator type and by provider.

The trace comes from a separate, short run, because writing it costs time at every node: the shares are good,
the milliseconds are those of the instrumented run. The trace also proves where each node ran.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .trace import Kernel


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
