"""The programme against trying every choice: the same least damage, and the same answer to what cannot be."""

import ctypes
import os
from itertools import product

import numpy as np
import pytest
from edgepress.fit.solve import GAP, Infeasible, Limit, Solution, solve, solve_any

UNITS, OPTIONS, LIMITS = 5, 4, 3


def problem(seed: int) -> tuple[list[list[float]], list[list[list[int]]]]:
    """Damages that fall and whole sizes that mostly grow from option to option, as more bits do."""
    draw = np.random.default_rng(seed)
    damages = np.sort(draw.exponential(size=(UNITS, OPTIONS)), 1)[:, ::-1]
    uses = np.sort(draw.integers(1, 1000, (LIMITS, UNITS, OPTIONS)), 2)
    uses[1] = draw.permuted(uses[1], axis=1)
    return damages.tolist(), uses.tolist()


def every(uses: list[list[list[int]]]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Each choice with what it uses of each limit."""
    found = []
    for options in product(range(OPTIONS), repeat=UNITS):
        found.append((options, [sum(row[o] for row, o in zip(t, options, strict=True)) for t in uses]))
    return found


def bounds_of(seed: int, uses: list[list[list[int]]], *, feasible: bool) -> list[int]:
    """Exactly what some choice uses; or below what any choice does, of one limit or of all together."""
    draw = np.random.default_rng(seed)
    choices = every(uses)
    bounds = list(choices[draw.integers(len(choices))][1])
    if not feasible:
        while any(all(u <= b for u, b in zip(used, bounds, strict=True)) for _, used in choices):
            bounds[draw.integers(LIMITS)] -= int(draw.integers(20, 400))
    return [max(1, bound) for bound in bounds]


@pytest.mark.parametrize("seed", range(30))
def test_it_answers_as_trying_every_choice_does(seed: int) -> None:
    damages, uses = problem(seed)
    bounds = bounds_of(seed, uses, feasible=seed % 2 == 0)
    found = solve(damages, [Limit(str(i), uses[i], bounds[i]) for i in range(LIMITS)])
    choices = every(uses)
    kept = [options for options, used in choices if all(u <= b for u, b in zip(used, bounds, strict=True))]
    assert bool(kept) == (seed % 2 == 0)
    if kept:
        assert isinstance(found, Solution) and found.options in kept
        best = min(sum(row[o] for row, o in zip(damages, options, strict=True)) for options in kept)
        assert best - 1e-9 <= found.damage <= best * (1 + GAP) and 0 <= found.gap <= GAP
        return
    assert isinstance(found, Infeasible)
    for index in range(LIMITS):
        rest = [i for i in range(LIMITS) if i != index]
        least = [used[index] for _, used in choices if all(used[i] <= bounds[i] for i in rest)]
        enough = found.enough[str(index)]
        assert (enough is None) == (not least)
        assert enough is None or enough == pytest.approx(min(least), rel=2 * GAP)


def test_a_bound_is_kept_to_the_last_byte() -> None:
    damages = [[1.0, 0.0]] * 3
    uses = [[10**9, 10**9 + 1]] * 3
    for spare in range(4):
        found = solve(damages, [Limit("disk", uses, 3 * 10**9 + spare)])
        assert isinstance(found, Solution) and sum(found.options) == min(spare, 3)


def test_the_best_of_several_sets_of_limits_is_chosen() -> None:
    """Fewer bytes take less time a byte: fast choices are small, or lose less where they may be slow."""
    damages, sizes = [[4.0, 2.0, 0.0]] * 2, [[1.0, 2.0, 4.0]] * 2
    slow = [[2 * size for size in row] for row in sizes]
    for seconds, options in ((16.0, (2, 2)), (6.0, (1, 2)), (4.0, (1, 1)), (3.0, (0, 1))):
        small = [Limit("seconds", sizes, seconds), Limit("within", sizes, 6.0)]
        found = solve_any(damages, [small, [Limit("seconds", slow, seconds)]])
        assert isinstance(found, Solution) and tuple(sorted(found.options)) == options
    sets = [[Limit("seconds", sizes, 1.0), Limit("within", sizes, 6.0)], [Limit("seconds", slow, 1.0)]]
    missed = solve_any(damages, sets)
    assert isinstance(missed, Infeasible) and missed.enough["seconds"] == 2.0


def test_without_limits_every_unit_gets_its_best() -> None:
    found = solve([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]], [])
    assert isinstance(found, Solution) and found.options == (1, 0) and found.damage == 1.0


def test_nothing_is_printed_where_a_verb_has_its_document(capfd: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(2)  # a programme at which HiGHS writes lines of its own
    sizes = np.sort(draw.uniform(1, 8, (40, 8)), 1) * draw.lognormal(12, 1, (40, 1))
    damages = np.exp(-2 * sizes / sizes.mean(1, keepdims=True)) * draw.lognormal(0, 1, (40, 1))
    damages *= draw.uniform(0.9, 1.1, damages.shape)
    tables = [sizes, *(sizes * draw.uniform(0.5, 1.5, sizes.shape) for _ in range(3))]
    limits = [
        Limit(str(n), uses.tolist(), float(0.65 * uses.min(1).sum() + 0.35 * uses.max(1).sum()))
        for n, uses in enumerate(tables)
    ]
    assert isinstance(solve(damages.tolist(), limits), Solution)
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
    print("seen")
    assert capfd.readouterr().out == "seen\n"
