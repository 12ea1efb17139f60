"""The multiple-choice knapsack: one option for every item, the least total cost within a budget of sizes.

Solved exactly by dynamic programming over the budget (Dudzinski, Walukiewicz 1987, EJOR 28:1), counted in the
greatest unit that divides all sizes. Where that leaves more than ``LARGEST`` units, sizes are rounded up to a
coarser one: the answer still keeps the budget, and says that it may miss the best by that rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import RecipeError

LARGEST = 1 << 18


@dataclass(frozen=True)
class Solution:
    """The chosen ``options``, an index for each item; their total ``cost`` and ``size``; ``exact`` unless the
    sizes had to be rounded.
    """

    options: tuple[int, ...]
    cost: float
    size: int
    exact: bool


def choose(costs: Sequence[Sequence[float]], sizes: Sequence[Sequence[int]], budget: int) -> Solution:
    """The cheapest choice whose sizes add up to at most ``budget``; ``costs[item][option]`` likewise."""
    least = [min(row) for row in sizes]
    room = budget - sum(least)
    if room < 0:
        raise RecipeError(
            f"the budget of {budget} is below the {sum(least)} of the smallest choice",
            fix="raise the budget, or allow smaller schemes",
        )
    extra = [[size - low for size in row] for row, low in zip(sizes, least, strict=True)]
    room = min(room, sum(max(row) for row in extra))
    unit = math.gcd(*(size for row in extra for size in row)) or 1
    exact = room // unit <= LARGEST
    if not exact:
        unit = -(-room // LARGEST)
    steps = [[-(-size // unit) for size in row] for row in extra]
    picked = _fill(costs, steps, room // unit)
    return Solution(
        tuple(picked),
        sum(row[option] for row, option in zip(costs, picked, strict=True)),
        sum(row[option] for row, option in zip(sizes, picked, strict=True)),
        exact,
    )


def _fill(costs: Sequence[Sequence[float]], steps: Sequence[Sequence[int]], room: int) -> list[int]:
    best = np.zeros(room + 1)  # the least cost of the items so far within each room
    choices = np.zeros((len(costs), room + 1), dtype=np.uint8)
    for item, (row, widths) in enumerate(zip(costs, steps, strict=True)):
        found = np.full(room + 1, np.inf)
        for option, (cost, width) in enumerate(zip(row, widths, strict=True)):
            if width > room:
                continue
            candidate = best[: room + 1 - width] + cost
            better = candidate < found[width:]
            found[width:][better] = candidate[better]
            choices[item, width:][better] = option
        best = found
    picked, left = [], room
    for item in reversed(range(len(costs))):
        option = int(choices[item, left])
        picked.append(option)
        left -= steps[item][option]
    return picked[::-1]
