"""The cases of a kernel table: what is timed is a whole grid of each operator, and every operator runs."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
from edgepress.devices.kernel_table.cases import Case, cases
from edgepress.devices.kernel_table.chain import LAST_BYTE, LEAST_BYTE, Chain
from edgepress.devices.kernel_table.operation import AXES
from edgepress.runtime.kernels.library import library

STOCK = 8 << 20


def families() -> dict[tuple[object, ...], list[Case]]:
    found: dict[tuple[object, ...], list[Case]] = {}
    for case in cases():
        work = case.kind.operation
        found.setdefault((work.op, work.form, work.features, work.kind, case.reach), []).append(case)
    return found


def test_every_family_is_a_whole_grid() -> None:
    for key, members in families().items():
        sizes = [case.kind.operation.sizes for case in members]
        assert len(set(sizes)) == len(sizes), key
        assert prod(len(set(axis)) for axis in zip(*sizes, strict=True)) == len(sizes), key
        assert all(len(one) == len(AXES[str(key[3])]) for one in sizes), key


def test_what_is_read_from_afar_is_also_read_near() -> None:
    found = families()
    for *rest, reach in found:
        assert reach == "near" or (*rest, "near") in found, rest


@pytest.mark.chain
def test_the_smallest_of_each_family_runs(tmp_path: Path) -> None:
    stock = np.random.default_rng(0).integers(LEAST_BYTE, LAST_BYTE, STOCK, np.uint8)
    (tmp_path / "stock.bin").write_bytes(stock.tobytes())
    for key, members in families().items():
        case = min(members, key=lambda one: (one.kind.operation.work, one.kind.operation.moved))
        if case.kind.domain == "edgepress" and library() is None:
            continue
        if case.kind.operation.read > STOCK // 2:
            continue
        chain = Chain(case.kind, 1, stock, tmp_path / "stock.bin", far=case.reach == "far")
        taken = chain.time(seconds=1e-9, passes=2)
        assert len(taken) >= 2 and min(taken) > 0, key
