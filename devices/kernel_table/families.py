"""Times of cases as the families of a kernel table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .cases import Case, cases
from .table import Family, KernelTable

Done = dict[tuple[int, int], tuple[float, float]]  # case and threads: median and least seconds of a node


def done_of(table: KernelTable) -> Done:
    """What a measurement that was stopped has timed."""
    found = {
        (one.op, one.form, tuple(one.features), one.kind, one.reach, one.threads, tuple(size)): (
            median,
            least,
        )
        for one in table.families
        for size, median, least in zip(one.sizes, one.seconds, one.least, strict=True)
    }
    threads = {one.threads for one in table.families}
    return {
        (index, count): found[key]
        for index, case in enumerate(cases())
        for count in threads
        if (key := (*_family(case), count, case.kind.operation.sizes)) in found
    }


def _family(case: Case) -> tuple[str, str, tuple[str, ...], str, str]:
    work = case.kind.operation
    return work.op, work.form, work.features, work.kind, case.reach


def families_of(done: Done, known: Sequence[Case]) -> list[Family]:
    """One for each operator, form, reach and number of threads of the cases that are ``known``."""
    groups = dict[Any, list[tuple[Any, float, float]]]()
    for (index, threads), (median, least) in sorted(done.items()):
        case = known[index]
        groups.setdefault((*_family(case), threads), []).append((case.kind.operation, median, least))
    return [
        Family(
            op=op,
            form=form,
            features=list(features),
            kind=kind,
            reach=reach,
            threads=threads,
            sizes=[list(work.sizes) for work, _, _ in members],
            read=[work.read for work, _, _ in members],
            moved=[work.moved for work, _, _ in members],
            work=[work.work for work, _, _ in members],
            seconds=[float(f"{median:.4g}") for _, median, _ in members],
            least=[float(f"{least:.4g}") for _, _, least in members],
        )
        for (op, form, features, kind, reach, threads), members in groups.items()
    ]
