"""A limit of the solver is its budget, seen through the predictions: a choice keeps one where it keeps the
other, before and after a trial has corrected them.
"""

from __future__ import annotations

from itertools import product

import pytest
from edgepress.compress.numbers.scheme import Scheme
from edgepress.fit.budgets import DECODE, DISK, FIRST_TOKEN, KL, MEMORY, Budget
from edgepress.fit.candidates import Option, Space, Unit
from edgepress.fit.corrections import Corrections
from edgepress.fit.methods import METHODS

SCHEMES = [Scheme.parse(f"W{bits}A16-g32") for bits in (2, 4, 8)]
UNITS = 3
SPACE = Space(
    tuple(
        Unit(f"unit {n}", (f"m{n}",), tuple(Option(s, (n + 1) / s.bits**3, 1e6 * s.bits) for s in SCHEMES))
        for n in range(UNITS)
    ),
    shipped=5e6,
    resident=80e6,
)
TIMES = {
    "decode on pi": [[1e-3 * s.bits for s in SCHEMES]] * UNITS,
    "first token on pi": [[3e-2, 2.5e-2, 2e-2]] * UNITS,
}
BOUNDS = [
    (DISK, 18e6, None),
    (MEMORY, 95e6, "pi"),
    (DECODE, 60.0, "pi"),
    (FIRST_TOKEN, 0.088, "pi"),
    (KL, 0.2, None),
]
BUDGETS = [Budget(*one) for one in BOUNDS]
MEASURED = {"disk": 17e6, "memory on pi": 99e6, "decode on pi": 70.0, "first token on pi": 0.09, "KL": 0.09}
CHOICES = list(product(range(len(SCHEMES)), repeat=UNITS))


def corrected(*, learned: bool) -> Corrections:
    corrections = Corrections(times=TIMES)
    if learned:
        corrections.learn(SPACE, (1, 1, 1), METHODS[0], MEASURED)
    return corrections


def test_what_was_measured_is_predicted_of_the_same_choice() -> None:
    found = corrected(learned=True).predicted(SPACE, (1, 1, 1), METHODS[0], BUDGETS)
    assert found == pytest.approx(MEASURED)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda one: one.key)
def test_a_limit_is_kept_where_the_prediction_keeps_the_budget(budget: Budget, learned: bool) -> None:
    corrections = corrected(learned=learned)
    (limit,) = corrections.limits(SPACE, [budget], METHODS[0])
    agreed = kept = 0
    for options in CHOICES:
        value = corrections.predicted(SPACE, options, METHODS[0], [budget])[budget.key]
        near = abs(value / budget.bound - 1) < 0.04  # what is left free of bytes and of damage
        agreed += near or limit.kept(options) == budget.holds(value)
        kept += limit.kept(options)
    assert agreed == len(CHOICES) > kept > 0
    used = limit.used((1, 1, 1))
    bound = corrections.bound_of(budget, limit, used, METHODS[0])
    value = corrections.predicted(SPACE, (1, 1, 1), METHODS[0], [budget])[budget.key]
    assert bound == pytest.approx(value, rel=0.04)


def test_damage_is_no_limit_beside_others_until_a_trial_says_what_it_means() -> None:
    names = [one.key for one in BUDGETS]
    assert [one.name for one in corrected(learned=False).limits(SPACE, BUDGETS, METHODS[0])] == names[:-1]
    corrections = corrected(learned=True)
    assert [one.name for one in corrections.limits(SPACE, BUDGETS, METHODS[0])] == names
    assert corrections.factor(METHODS[2]) == corrections.factor(METHODS[0])  # nearer than none
