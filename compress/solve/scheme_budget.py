"""Which scheme each group of linears gets within a budget of stored bits: a multiple-choice knapsack, solved
to optimality (:mod:`.knapsack`); with protected groups of text the choice that spares the worst of them
(:mod:`.worst_choice`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model.block_anatomy import Linear
from ..numbers.scheme import Scheme
from .allocation import Allocation, Costs
from .knapsack import choose
from .worst_choice import WorstSolution, choose_worst

# How much more than without protected groups ordinary text may lose.
MOST_OF_ORDINARY = 0.03
Groups = Sequence[Sequence[Linear]]


def within_budget(
    groups: Groups, schemes: Sequence[Scheme], bits: float, costs: Mapping[str, Costs]
) -> tuple[Allocation, dict[str, Any]]:
    """The scheme of each linear of ``groups``, which have one each, of ``bits`` a weight together; and what a
    manifest keeps of the choice.

    Args:
        costs: of ordinary text, under "", and of each protected group of text.
    """
    sizes = [[sum(_bits(linear, scheme) for linear in group) for scheme in schemes] for group in groups]
    weights = sum(linear.out_features * linear.in_features for group in groups for linear in group)
    names, budget = [scheme.name for scheme in schemes], int(bits * weights)
    rows = {of: _rows(found, groups, names) for of, found in costs.items()}
    ordinary = rows.pop("")
    if not rows:
        choice = choose(ordinary, sizes, budget)
        options, size = choice.options, choice.size
        said: dict[str, Any] = {"predicted": choice.cost, "exact": choice.exact}
    else:
        spared = choose_worst(ordinary, list(rows.values()), sizes, budget, MOST_OF_ORDINARY)
        options, size = spared.options, spared.size
        said = {"predicted": spared.own, "exact": False, "protected": _spared(list(rows), spared)}
    picked = zip(groups, options, strict=True)
    allocation = {linear.name: names[option] for group, option in picked for linear in group}
    return allocation, {**said, "bits_per_weight": size / weights}


def _rows(costs: Costs, groups: Groups, names: Sequence[str]) -> list[list[float]]:
    """What each group of linears costs with each scheme."""
    return [
        [sum(costs[linear.name].get(name, float("inf")) for linear in group) for name in names]
        for group in groups
    ]


def _spared(names: Sequence[str], spared: WorstSolution) -> dict[str, Any]:
    """Of each protected group the loss that is predicted, and that of a choice for ordinary text alone; the
    least that the largest could be; what ordinary text loses, and would lose.
    """
    found = zip(names, spared.losses.tolist(), spared.before.tolist(), strict=True)
    return {
        "groups": {name: {"predicted": loss, "unprotected": before} for name, loss, before in found},
        "worst_at_least": spared.bound,
        "ordinary": {"predicted": spared.own, "unprotected": spared.own_before},
    }


def _bits(linear: Linear, scheme: Scheme) -> int:
    return round(linear.out_features * linear.in_features * scheme.bits_per_weight(linear.in_features))
