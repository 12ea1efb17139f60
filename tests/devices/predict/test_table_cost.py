"""Costs looked up in a table: exact where it was measured, between its sizes in between, never beyond it."""

from __future__ import annotations

import pytest
from edgepress.devices.kernel_table.cases import cases
from edgepress.devices.kernel_table.operation import (
    Operation,
    by_rows,
    cached_attention,
    quantized_product,
)
from edgepress.devices.predict.table_cost import NotMeasured, TableCost

from ..kernel_table.tables import COMPUTING, NODE, STOCK, WAITING, plain_seconds, small_table


def test_what_was_measured_is_what_is_predicted() -> None:
    cost = TableCost(small_table(), 1)
    for case in cases():
        work = case.kind.operation
        if work.features:
            continue  # a feature is a factor of the plain one, which differs by its bytes
        distance = 0.0 if case.reach == "near" else 1.0
        found = cost.seconds(work, distance)
        wanted = plain_seconds(work, case.reach)
        if case.reach == "near" or wanted >= plain_seconds(work, "near"):
            assert found == pytest.approx(wanted, rel=1e-6), work


def naive(work: Operation, distance: float, peak: float = WAITING) -> float:
    """The machine of the table, computed without a table: half of every roof, near and far."""
    near, far = (plain_seconds(work, reach, peak) - NODE for reach in ("near", "far"))
    return near + distance * max(far - near, 0.0) + NODE


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("sizes", [(300, 700), (576, 1536), (2000, 3000)])
@pytest.mark.parametrize("peak", [WAITING, COMPUTING])
def test_between_the_sizes_a_machine_of_one_efficiency_is_itself(
    rows: int, sizes: tuple[int, int], peak: float
) -> None:
    table = small_table(lambda work, reach: plain_seconds(work, reach, peak))
    cost, work = TableCost(table, 1), quantized_product(rows, *sizes, 4)
    for distance in (0.0, 0.4, 1.0) if rows <= 16 else (0.0,):
        assert cost.seconds(work, distance) == pytest.approx(naive(work, distance, peak), rel=0.05)
    assert cost.notes == []


def test_two_threads_are_the_tables_two_threads() -> None:
    work = quantized_product(1, 1024, 1024, 8)
    one, two = (TableCost(small_table(), threads) for threads in (1, 2))
    assert two.seconds(work, 1.0) - NODE == pytest.approx((one.seconds(work, 1.0) - NODE) / 2, rel=1e-6)


def test_beyond_the_table_the_edge_is_taken_and_said() -> None:
    cost = TableCost(small_table(), 1)
    work = quantized_product(1, 12_000, 4096, 4)
    assert cost.seconds(work, 1.0) == pytest.approx(naive(work, 1.0), rel=0.02)
    assert cost.notes == ["QuantizedProduct of 4: inputs 12,000 (measured 256 to 4,096)"]


def test_what_was_not_measured_is_refused() -> None:
    cost = TableCost(small_table(), 1)
    for work in (quantized_product(1, 1024, 1024, 5), by_rows("Swish", 1, 1024)):
        with pytest.raises(NotMeasured, match="has no"):
            cost.seconds(work, 0.0)
    with pytest.raises(NotMeasured, match="3 threads"):
        TableCost(small_table(), 3)


def test_a_shape_of_heads_between_those_that_were_measured_is_the_nearest_and_said() -> None:
    cost = TableCost(small_table(), 1)
    work = cached_attention("CachedAttention", "float32", 1, 500, 14, 2, 64)
    # 4 heads to a key head were measured, 7 are asked for: by its bytes, or by its multiply-adds.
    assert naive(work, 0.0) * 0.95 <= cost.seconds(work, 0.0) <= naive(work, 0.0) * 7 / 4 * 1.05
    assert len(cost.notes) == 1 and "the nearest that was measured" in cost.notes[0]


def test_features_multiply() -> None:
    def slower(work: Operation, reach: str) -> float:
        factor = 1.5 if "gated" in work.features else 1.2 if "zero points" in work.features else 1.0
        return (plain_seconds(work, reach) - NODE) * factor + NODE

    cost = TableCost(small_table(slower), 1)
    plain = cost.seconds(quantized_product(16, 1024, 1024, 4), 0.0) - NODE
    both = cost.seconds(quantized_product(16, 1024, 1024, 4, gated=True, zero_points=True), 0.0) - NODE
    assert both == pytest.approx(plain * 1.8, rel=0.05)  # zero points are bytes, too


def test_weights_lie_where_the_whole_graphs_do() -> None:
    cost = TableCost(small_table(), 1)
    distances = [cost.distance(size) for size in (1 << 18, 1 << 21, 1 << 24, 1 << 26, STOCK, 1 << 34)]
    assert distances[0] == 0.0 and distances[-1] == 1.0
    assert distances == sorted(distances)


def test_a_sum_is_the_sum_of_its_parts() -> None:
    cost = TableCost(small_table(), 1)
    parts = [(quantized_product(1, 576, 960, 4), 30), (by_rows("Mul", 1, 1536, 3), 30)]
    whole = sum(count * cost.seconds(work, 0.5) for work, count in parts)
    assert cost.total(parts, 0.5) == whole == TableCost(small_table(), 1).total(parts, 0.5)
