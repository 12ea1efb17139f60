"""The knapsack against every choice there is."""

from __future__ import annotations

import itertools

import pytest
from edgepress.compress.solve import knapsack
from edgepress.compress.solve.knapsack import choose
from edgepress.errors import RecipeError
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain


def brute(costs: list[list[float]], sizes: list[list[int]], budget: int) -> float:
    options = [range(len(row)) for row in costs]
    found = [
        sum(costs[item][option] for item, option in enumerate(pick))
        for pick in itertools.product(*options)
        if sum(sizes[item][option] for item, option in enumerate(pick)) <= budget
    ]
    return min(found, default=float("inf"))


def item(options: int) -> st.SearchStrategy[list[tuple[float, int]]]:
    pair = st.tuples(st.floats(0, 100), st.integers(1, 40))
    return st.lists(pair, min_size=options, max_size=options)


@settings(max_examples=200)
@given(st.lists(item(3), min_size=1, max_size=5), st.integers(1, 200), st.sampled_from([1, 7, 4096]))
def test_it_finds_the_least_cost(rows: list[list[tuple[float, int]]], budget: int, unit: int) -> None:
    costs = [[cost for cost, _ in row] for row in rows]
    sizes = [[size * unit for _, size in row] for row in rows]
    expected = brute(costs, sizes, budget * unit)
    if expected == float("inf"):
        with pytest.raises(RecipeError, match="smallest choice"):
            choose(costs, sizes, budget * unit)
        return
    choice = choose(costs, sizes, budget * unit)
    assert choice.exact and choice.size <= budget * unit
    assert choice.cost == pytest.approx(expected)
    assert choice.size == sum(row[option] for row, option in zip(sizes, choice.options, strict=True))


def test_sizes_that_share_no_unit_are_rounded_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "LARGEST", 300)
    costs = [[10.0 - option for option in range(4)] for _ in range(6)]
    sizes = [[100 + 997 * option + number * (option + 1) for option in range(4)] for number in range(6)]
    choice = choose(costs, sizes, 9000)
    assert not choice.exact and choice.size <= 9000
    assert choice.cost <= brute(costs, sizes, 9000) + 1


def test_a_budget_for_everything_takes_the_best_of_everything() -> None:
    assert choose([[3.0, 1.0], [5.0, 9.0]], [[1, 2], [1, 2]], 10**12).options == (1, 0)
