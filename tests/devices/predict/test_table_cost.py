"""Costs looked up in a table: exact where it was measured, between its sizes in between, never beyond it."""

import pytest
from edgepress.devices.kernel_table.cases import cases
from edgepress.devices.kernel_table.operation import (
    STREAMED,
    Operation,
    by_rows,
    cached_attention,
    quantized_product,
)
from edgepress.devices.kernel_table.table import Streamed
from edgepress.devices.predict.caches import Place
from edgepress.devices.predict.table_cost import NotMeasured, TableCost

from ..kernel_table.tables import COMPUTING, NODE, STOCK, WAITING, plain_seconds, small_table

NEARBY, FAR_AWAY = Place(0.0, 0.0), Place(1.0, 1.0)


def test_what_was_measured_is_what_is_predicted() -> None:
    cost = TableCost(small_table(), 1)
    for case in cases():
        work = case.kind.operation
        if work.features:
            continue  # a feature is a factor of the plain one, which differs by its bytes
        found = cost.seconds(work, NEARBY if case.reach == "near" else FAR_AWAY)
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
        assert cost.seconds(work, Place(distance, distance)) == pytest.approx(
            naive(work, distance, peak), rel=0.05
        )
    assert cost.notes == []


def test_two_threads_are_the_tables_two_threads() -> None:
    work = quantized_product(1, 1024, 1024, 8)
    one, two = (TableCost(small_table(), threads) for threads in (1, 2))
    assert two.seconds(work, FAR_AWAY) - NODE == pytest.approx(
        (one.seconds(work, FAR_AWAY) - NODE) / 2, rel=1e-6
    )


def test_beyond_the_table_the_edge_is_taken_and_said() -> None:
    cost = TableCost(small_table(), 1)
    work = quantized_product(1, 12_000, 4096, 4)
    assert cost.seconds(work, FAR_AWAY) == pytest.approx(naive(work, 1.0), rel=0.02)
    assert cost.notes == ["inputs 12,000 of QuantizedProduct (measured 256 to 4,096)"]


def test_what_was_not_measured_is_refused() -> None:
    cost = TableCost(small_table(), 1)
    for work in (quantized_product(1, 1024, 1024, 7), by_rows("Swish", 1, 1024)):
        with pytest.raises(NotMeasured, match="has no"):
            cost.seconds(work, NEARBY)
    with pytest.raises(NotMeasured, match="3 threads"):
        TableCost(small_table(), 3)


def test_a_shape_of_heads_between_those_that_were_measured_is_the_nearest_and_said() -> None:
    cost = TableCost(small_table(), 1)
    work = cached_attention("CachedAttention", "float32", 1, 500, 14, 2, 64)
    # 4 heads to a key head were measured, 7 are asked for: by its bytes, or by its multiply-adds.
    assert naive(work, 0.0) * 0.95 <= cost.seconds(work, NEARBY) <= naive(work, 0.0) * 7 / 4 * 1.05
    assert len(cost.notes) == 1 and "the nearest that was measured" in cost.notes[0]


def test_features_multiply() -> None:
    def slower(work: Operation, reach: str) -> float:
        factor = 1.5 if "gated" in work.features else 1.2 if "zero points" in work.features else 1.0
        return (plain_seconds(work, reach) - NODE) * factor + NODE

    cost = TableCost(small_table(slower), 1)
    plain = cost.seconds(quantized_product(16, 1024, 1024, 4), NEARBY) - NODE
    both = cost.seconds(quantized_product(16, 1024, 1024, 4, gated=True, zero_points=True), NEARBY) - NODE
    assert both == pytest.approx(plain * 1.8, rel=0.05)  # zero points are bytes, too


def test_weights_lie_where_the_whole_graphs_do() -> None:
    cost = TableCost(small_table(), 1)
    distances = [cost.place(size).distance for size in (1 << 18, 1 << 21, 1 << 24, 1 << 26, STOCK, 1 << 34)]
    assert distances[0] == 0.0 and distances[-1] == 1.0
    assert distances == sorted(distances)


def test_a_sum_is_the_sum_of_its_parts() -> None:
    cost = TableCost(small_table(), 1)
    parts = [(quantized_product(1, 576, 960, 4), 30), (by_rows("Mul", 1, 1536, 3), 30)]
    half = Place(0.5, 0.5)
    whole = sum(count * cost.seconds(work, half) for work, count in parts)
    assert cost.total(parts, half) == whole == TableCost(small_table(), 1).total(parts, half)


def streams(*found: tuple[int, float, float, float], threads: int = 1) -> list[Streamed]:
    """Of working set, seconds of the product, of a small node, and of a token."""
    return [
        Streamed(
            threads=threads,
            working_set=size,
            bytes_per_second=STREAMED.read / product,
            between=between,
            token=token,
        )
        for size, product, between, token in found
    ]


def test_a_product_among_many_takes_as_long_as_it_did_in_the_stream() -> None:
    near, far = (plain_seconds(STREAMED, reach) - NODE for reach in ("near", "far"))
    found = streams(
        (4 << 20, near, 1e-6, 5e-6), (64 << 20, (near + far) / 2, 2e-6, 5e-5), (STOCK, 1.3 * far, 3e-6, 1e-4)
    )
    cost = TableCost(small_table(streams=found), 1)
    for size, expected in (
        (1 << 20, near),
        (64 << 20, (near + far) / 2),
        (STOCK, 1.3 * far),
        (1 << 34, 1.3 * far),
    ):
        assert cost.seconds(STREAMED, cost.place(size)) == pytest.approx(expected + NODE, rel=1e-6)


def test_what_is_small_waits_for_what_left_the_caches() -> None:
    near, far = (plain_seconds(STREAMED, reach) - NODE for reach in ("near", "far"))
    found = streams((4 << 20, near, 1e-6, 5e-6), (64 << 20, near, 3e-6, 1e-4), (STOCK, far, 3e-6, 1e-4))
    cost, norm = TableCost(small_table(streams=found), 1), by_rows("SumRootMeanSquareNorm", 1, 1024, 4)
    hot, cold = cost.place(4 << 20), cost.place(64 << 20)
    assert (hot.lost, hot.call) == (0.0, pytest.approx(5e-6)) and (cold.lost, cold.call) == (
        1.0,
        pytest.approx(1e-4),
    )
    assert cold.distance == 0.0, "weights that are read ahead are not late"
    assert cost.seconds(norm, cold) - cost.seconds(norm, hot) == pytest.approx(2e-6)


def test_the_spread_of_the_rates_from_memory_is_found() -> None:
    rates = [(STOCK, 1e-6 * (10 + step), 1e-6, 1e-5) for step in range(9)]
    moved = streams(*rates, (4 << 20, 1e-7, 1e-6, 1e-5))
    fastest, middle, slowest = (1 / (1e-6 * step) for step in (10, 14, 18))
    found = TableCost(small_table(streams=moved), 1).caches.spread
    assert found == pytest.approx((fastest - slowest) / 2 / middle, rel=1e-6)
    assert TableCost(small_table(), 1).caches.spread == 0.0
