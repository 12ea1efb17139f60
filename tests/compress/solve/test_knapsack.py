"""The knapsack against every choice there is."""

import itertools
import sys

import pytest
from edgepress.compress.solve import knapsack
from edgepress.compress.solve.knapsack import choose, choose_worst
from edgepress.errors import RecipeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.chain

ITEMS, OPTIONS, GROUPS = 4, 3, 3
LOSS = st.floats(0.0, 10.0)
Rows = list[list[float]]


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


def rows(entry: st.SearchStrategy[float]) -> st.SearchStrategy[Rows]:
    one = st.lists(entry, min_size=OPTIONS, max_size=OPTIONS)
    return st.lists(one, min_size=ITEMS, max_size=ITEMS)


def total(losses: Rows, pick: tuple[int, ...]) -> float:
    return sum(row[option] for row, option in zip(losses, pick, strict=True))


def naive(own: Rows, groups: list[Rows], budget: int, most_own: float) -> float:
    """The smallest largest loss of all choices that keep both limits; an option's size is its number."""
    within = [pick for pick in itertools.product(range(OPTIONS), repeat=ITEMS) if sum(pick) + ITEMS <= budget]
    limit = (1 + most_own) * min(total(own, pick) for pick in within)
    kept = [pick for pick in within if total(own, pick) <= limit * (1 + 1e-9)]
    return min(max(total(group, pick) for group in groups) for pick in kept)


NOTHING = [[0.0] * OPTIONS] * ITEMS
ONE = [*NOTHING[:-1], [1.0, 0.0, 0.0]]
LEAST = [*NOTHING[:-1], [1.0, 1.0, sys.float_info.min]]


@settings(max_examples=30)
@example(ONE, [NOTHING, NOTHING, [*NOTHING[:2], [1.0, 0.0, 0.0], NOTHING[0]]], 5, 0.0)
@example(LEAST, [NOTHING, NOTHING, [*NOTHING[:2], [4.0, 0.0, 0.0], NOTHING[0]]], 6, 0.0)
@given(
    rows(LOSS),
    st.lists(rows(LOSS), min_size=GROUPS, max_size=GROUPS),
    st.integers(ITEMS, 3 * ITEMS),
    st.floats(0, 1),
)
def test_it_keeps_both_limits_and_its_bound_holds(
    own: Rows, groups: list[Rows], budget: int, most_own: float
) -> None:
    sizes = [list(range(1, OPTIONS + 1))] * ITEMS
    found = choose_worst(own, groups, sizes, budget, most_own)
    assert found.size == sum(found.options) + ITEMS <= budget
    assert found.own == pytest.approx(total(own, found.options))
    assert found.own <= (1 + most_own) * found.own_before * (1 + 1e-9)
    assert found.own_before == pytest.approx(choose(own, sizes, budget).cost)
    assert found.losses == pytest.approx([total(group, found.options) for group in groups])
    assert found.losses.max() <= found.before.max() + 1e-9
    best = naive(own, groups, budget, most_own)
    assert found.bound <= best + 1e-6 and best <= found.losses.max() + 1e-9


def test_one_group_and_no_limit_is_the_knapsack() -> None:
    own = [[5.0, 1.0, 0.0]] * ITEMS
    group = [[9.0, 3.0, 1.0], [4.0, 3.0, 2.0], [8.0, 1.0, 0.5], [6.0, 2.0, 1.5]]
    sizes = [[1, 2, 3]] * ITEMS
    found = choose_worst(own, [group], sizes, 8, 1e9)
    assert found.losses[0] == pytest.approx(choose(group, sizes, 8).cost)


def test_an_option_that_there_is_not_is_never_taken() -> None:
    own = [[float("inf"), 1.0], [2.0, 1.0]]
    groups = [[[float("inf"), 4.0], [1.0, 0.5]], [[float("inf"), 1.0], [8.0, 0.5]]]
    found = choose_worst(own, groups, [[1, 2], [1, 2]], 4, 0.5)
    assert found.options == (1, 1)
