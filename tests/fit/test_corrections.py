"""A limit of the solver is its budget, seen through the predictions: a choice keeps one where it keeps the
other, before and after a trial has corrected them.
"""

import math
from dataclasses import replace
from itertools import product

import pytest
from edgepress.compress.numbers.scheme import Scheme
from edgepress.fit.budgets import Budget
from edgepress.fit.candidates import Option, Space, Unit
from edgepress.fit.corrections import Corrections, damages_by
from edgepress.fit.methods import METHODS, Method
from edgepress.fit.quantities import (
    ACCURACY,
    COSINE,
    DECODE,
    DISK,
    ENERGY,
    FIRST_TOKEN,
    KL,
    MEMORY,
    SENTENCES,
    SPEARMAN,
    Quantity,
)
from edgepress.fit.solve import Solution, solve_any, total
from edgepress.fit.speed.times import Times

SCHEMES = [Scheme.parse(f"W{bits}A16-g32") for bits in (2, 4, 8)]
UNITS = 3


def alike(row: list[float]) -> Times:
    """Of all units; half as long in a bundle of at most 15 MB."""
    return Times((15e6, 40e6), ([[seconds / 2 for seconds in row]] * UNITS, [row] * UNITS))


TIMES = {
    "decode on pi": alike([1e-3 * s.bits for s in SCHEMES]),
    "first token on pi": alike([3e-2, 4e-2, 5e-2]),
    "sentences on pi": alike([1.2e-3, 2.5e-3, 4e-3]),
}
SPACE = Space(
    tuple(
        Unit(f"unit {n}", (f"m{n}",), tuple(Option(s, (n + 1) / s.bits**3, 1e6 * s.bits) for s in SCHEMES))
        for n in range(UNITS)
    ),
    shipped=5e6,
    resident=80e6,
    times=TIMES,
)
BOUNDS = [
    (DISK, 18e6, None),
    (MEMORY, 95e6, "pi"),
    (DECODE, 60.0, "pi"),
    (FIRST_TOKEN, 0.088, "pi"),
    (SENTENCES, 160.0, "pi"),
    (COSINE, 0.98, None),
    (SPEARMAN, 0.97, None),
    (ACCURACY, 0.85, None),
    (KL, 0.2, None),
]
QUALITY = [one[0] for one in BOUNDS if one[0].of_quality]
ORIGINALS = {"KL": 0.0, "cosine": 1.0, "Spearman": 1.0, "accuracy": 0.9}
BUDGETS = [Budget(*one) for one in BOUNDS]
MEASURED = {
    "disk": 17e6,
    "memory on pi": 99e6,
    "decode on pi": 70.0,
    "first token on pi": 0.09,
    "sentences on pi": 150.0,
    "KL": 0.09,
    "cosine": 0.99,
    "Spearman": 0.98,
    "accuracy": 0.88,
}
CHOICES = list(product(range(len(SCHEMES)), repeat=UNITS))


def corrected(*, learned: bool) -> Corrections:
    corrections = Corrections()
    if learned:
        corrections.learn(SPACE, (1, 1, 1), METHODS[0], MEASURED, ORIGINALS)
    return corrections


def test_what_was_measured_is_predicted_of_the_same_choice() -> None:
    found = corrected(learned=True).predicted(SPACE, (1, 1, 1), METHODS[0], BUDGETS)
    assert found == pytest.approx(MEASURED)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda one: one.key)
def test_a_limit_is_kept_where_the_prediction_keeps_the_budget(budget: Budget, learned: bool) -> None:
    corrections = corrected(learned=learned)
    sets = corrections.limits(SPACE, [budget], METHODS[0])
    assert [len(limits) for limits in sets] == [2, 1]  # in a small bundle, or in any
    limit = sets[-1][0]
    agreed = kept = 0
    for options in CHOICES:
        value = corrections.predicted(SPACE, options, METHODS[0], [budget])[budget.key]
        quantity = budget.quantity
        near = abs(value / budget.bound - 1) < 0.04  # what is left free of bytes and of damage
        if quantity.of_quality:
            losses = [quantity.lost(one, ORIGINALS[quantity.name]) for one in (value, budget.bound)]
            near = abs(losses[0] / losses[1] - 1) < 0.04
        allowed = any(all(one.kept(options) for one in limits) for limits in sets)
        agreed += near or allowed == budget.holds(value)
        kept += allowed
    assert agreed == len(CHOICES) > kept > 0
    used = limit.used((1, 1, 1))
    bound = corrections.bound_of(SPACE, budget, limit, used, METHODS[0])
    value = corrections.predicted(SPACE, (1, 1, 1), METHODS[0], [budget])[budget.key]
    assert bound == pytest.approx(value, rel=0.04)


def test_what_learns_is_chosen_by_what_learning_leaves() -> None:
    learns = Method(epochs=1)
    tables = (*SPACE.units, replace(SPACE.units[0], name="embedding", is_table=True))
    space = replace(SPACE, units=tables, judged=KL)
    for unit, row, before in zip(space.units, damages_by(space, learns), space.damages, strict=True):
        share = 1.0 if unit.is_table else learns.left_by_learning
        assert row == [share * one for one in before]
    assert damages_by(space, METHODS[0]) == space.damages
    assert damages_by(replace(space, judged=COSINE), learns) == space.damages
    # The least of all choices within a budget, one by one, of what is left.
    budget = [Budget(DISK, 30e6)]
    (limits,) = Corrections().limits(replace(space, times={}), budget, learns)
    found = solve_any(damages_by(space, learns), [limits])
    assert isinstance(found, Solution)
    lefts = {
        options: total(damages_by(space, learns), options)
        for options in product(range(3), repeat=len(space.units))
        if limits[0].kept(options)
    }
    assert found.options == min(lefts, key=lefts.__getitem__)


def test_a_peak_that_was_measured_leaves_free_what_two_processes_differ_by() -> None:
    budget = Budget(MEMORY, 95e6, "pi")
    before, after = (
        corrected(learned=one).limits(SPACE, [budget], METHODS[0])[-1][0] for one in (False, True)
    )
    assert before.bound == pytest.approx(95e6 - SPACE.resident)
    excess = MEASURED["memory on pi"] - SPACE.resident - before.used((1, 1, 1))
    assert after.bound == pytest.approx(before.bound - excess - 0.002 * 95e6)


def test_how_much_slower_a_device_is_follows_from_the_size_of_the_bundle() -> None:
    """Each trial corrects bundles of its own size, and those between two by both."""
    corrections, key = Corrections(), "decode on pi"
    budget, small, large = Budget(DECODE, 60.0, "pi"), (0, 0, 0), (2, 2, 2)
    assert [SPACE.size(options) for options in (small, large)] == [11e6, 29e6]
    before = {one: corrections.predicted(SPACE, one, METHODS[0], [budget])[key] for one in (small, large)}
    corrections.learn(SPACE, large, METHODS[0], MEASURED | {key: before[large] / 2}, ORIGINALS)
    assert corrections.predicted(SPACE, small, METHODS[0], [budget])[key] == pytest.approx(before[small] / 2)
    corrections.learn(SPACE, small, METHODS[0], MEASURED | {key: 2 * before[small]}, ORIGINALS)
    after = {one: corrections.predicted(SPACE, one, METHODS[0], [budget])[key] for one in (small, large)}
    assert after == pytest.approx({small: 2 * before[small], large: before[large] / 2})


@pytest.mark.parametrize(("quantity", "share"), [(COSINE, 0.5), (KL, 1.0)])
def test_a_squared_distance_of_unit_vectors_is_twice_what_is_missing_to_a_cosine(
    quantity: Quantity, share: float
) -> None:
    space = replace(SPACE, judged=quantity)
    damage = sum(row[1] for row in SPACE.damages)
    found = Corrections().predicted(space, (1, 1, 1), METHODS[0], [])[quantity.name]
    assert quantity.lost(found) == pytest.approx(share * damage)
    (limit,) = Corrections().limits(space, [Budget(quantity, found)], METHODS[0])[-1]
    assert limit.bound == pytest.approx(0.97 * damage)


def test_damage_is_no_limit_beside_others_until_a_trial_says_what_it_means() -> None:
    names = [one.key for one in BUDGETS]
    before = [one.name for one in corrected(learned=False).limits(SPACE, BUDGETS, METHODS[0])[-1]]
    assert before == [one.key for one in BUDGETS if not one.quantity.of_quality]
    corrections = corrected(learned=True)
    assert [one.name for one in corrections.limits(SPACE, BUDGETS, METHODS[0])[-1]] == names
    for quantity in QUALITY:  # nearer than none
        assert corrections.factor(quantity.name, METHODS[2]) == corrections.factor(quantity.name, METHODS[0])


def test_energy_is_watts_for_as_long_as_a_token_takes() -> None:
    energy = Budget(ENERGY, 0.4, "pi")
    space = replace(SPACE, times={"energy on pi": TIMES["decode on pi"]})
    corrections = Corrections()
    (limit,) = corrections.limits(space, [energy, BUDGETS[0]], METHODS[0])[-1]
    assert limit.name == "disk"  # until it is counted
    corrections.learn(space, (1, 1, 1), METHODS[0], MEASURED | {"energy on pi": 0.3}, {})
    modelled = Corrections(
        watts={"energy on pi": 0.3 * MEASURED["decode on pi"]}, seconds=corrections.seconds
    )
    for one in (corrections, modelled):
        assert one.predicted(space, (1, 1, 1), METHODS[0], [energy])["energy on pi"] == pytest.approx(0.3)
        sets = one.limits(space, [energy], METHODS[0])
        for options in CHOICES:
            value = one.predicted(space, options, METHODS[0], [energy])[energy.key]
            allowed = any(all(each.kept(options) for each in limits) for limits in sets)
            assert allowed == energy.holds(value)
        (limit,) = sets[-1]
        bound = one.bound_of(space, energy, limit, limit.bound, METHODS[0])
        assert bound == pytest.approx(energy.bound)


def test_what_a_cut_cost_counts_against_the_damage_that_is_left() -> None:
    cut = replace(SPACE, before=0.05)
    corrections = corrected(learned=True)
    whole, left = (corrections.limits(one, [BUDGETS[-1]], METHODS[0])[-1][0] for one in (SPACE, cut))
    assert whole.bound - left.bound == pytest.approx(0.05)
    values = [corrections.predicted(one, (1, 1, 1), METHODS[0], [])["KL"] for one in (SPACE, cut)]
    assert values[1] > values[0]


def test_an_accuracy_that_chance_left_whole_allows_more_damage_and_not_all() -> None:
    corrections = Corrections()
    corrections.learn(SPACE, (1, 1, 1), METHODS[0], MEASURED | {"accuracy": 0.91}, ORIGINALS)
    (limit,) = corrections.limits(SPACE, [Budget(ACCURACY, 0.85)], METHODS[0])[-1]
    assert limit.used((1, 1, 1)) < limit.bound < math.inf
