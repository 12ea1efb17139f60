"""A kernel table that was computed: every operation takes its roof's time divided by a known efficiency."""

from collections.abc import Callable
from typing import Any

from edgepress.devices.kernel_table.cases import cases
from edgepress.devices.kernel_table.operation import Operation
from edgepress.devices.kernel_table.table import Family, Fixed, KernelTable, Key, Reading

NEAR, FAR, NODE = 80e9, 20e9, 2e-7
# Multiply-adds per second of a machine whose kernels wait for memory, and of one that waits for them.
WAITING, COMPUTING = 1e15, 1e9
STOCK = 128 << 20


def plain_seconds(work: Operation, reach: str, peak: float = WAITING) -> float:
    """Of a machine whose kernels reach half of every roof."""
    bandwidth = NEAR if reach == "near" else FAR
    return 2 * max((work.read or work.moved) / bandwidth, work.work / peak, 1e-12) + NODE


def small_table(
    seconds: Callable[[Operation, str], float] = plain_seconds, runtime: str = "1.0", **changes: Any
) -> KernelTable:
    """The table of all cases for 1 thread and 2, where two are twice as fast."""
    groups: dict[tuple[Any, ...], list[Operation]] = {}
    for case in cases():
        work = case.kind.operation
        groups.setdefault((work.op, work.form, work.features, work.kind, case.reach), []).append(work)
    families = []
    for threads in (1, 2):
        for (op, form, features, kind, reach), members in groups.items():
            times = [(seconds(work, reach) - NODE) / threads + NODE for work in members]
            families.append(
                Family(
                    op=op,
                    form=form,
                    features=list(features),
                    kind=kind,
                    reach=reach,
                    threads=threads,
                    sizes=[list(work.sizes) for work in members],
                    read=[work.read for work in members],
                    moved=[work.moved for work in members],
                    work=[work.work for work in members],
                    seconds=times,
                    least=times,
                )
            )
    fixed = [Fixed(threads=count, run=5e-6, value=1e-7, node=NODE, call=1e-6) for count in (1, 2)]
    readings = [
        Reading(threads=count, working_set=size, bytes_per_second=count * rate)
        for count in (1, 2)
        for size, rate in ((1 << 20, NEAR), (16 << 20, 40e9), (STOCK, FAR))
    ]
    fields: dict[str, Any] = {
        "key": Key(processor="A processor", flags=["avx2"], runtime=runtime, provider="cpu", kernels="avx2"),
        "machine": "here",
        "tool": "edgepress",
        "created_utc": "2026-01-01T00:00:00+00:00",
        "took": 50.0,
        "busy_percent": 1.0,
        "complete": True,
        "reach_bytes": STOCK,
        "start": 0.3,
        "resident": 80_000_000,
        "disk_bytes_per_second": 1e9,
        "choose": 5e-5,
        "fixed": fixed,
        "bandwidth": readings,
        "families": families,
    }
    return KernelTable(**{**fields, **changes})
