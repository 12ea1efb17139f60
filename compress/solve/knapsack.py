"""The multiple-choice knapsack: one option for every item, the least total cost within a budget of sizes.

Solved exactly by dynamic programming over the budget (Dudzinski, Walukiewicz 1987, EJOR 28:1), counted in the
greatest unit that divides all sizes. Where that leaves more than ``LARGEST`` units, sizes are rounded up to a
coarser one: the answer still keeps the budget, and says that it may miss the best by that rounding.

The choice that spares whom it harms most: as :mod:`.knapsack`, but of the losses of several groups the
largest counts, and one loss of its own, that of ordinary text, may not grow by more than a share.

The problem is a zero-sum game between weights on the groups and choices. The weights are found by
multiplicative updates (Freund and Schapire, "Adaptive game playing using multiplicative weights", 1999);
for each of them the best choice is exact. The best choice that was met is returned, with the bound that the
weights prove: no choice whatever has a smaller largest loss.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import RecipeError

LARGEST = 1 << 18
ROUNDS = 100
_STEP = 1.0  # of the logarithm of a weight, for a loss that is zero beside the largest
_ENOUGH = 0.002  # of the largest loss: what is left to gain
_HALVINGS = 12
Numbers = NDArray[np.float64]


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


@dataclass(frozen=True)
class WorstSolution:
    """The chosen ``options``, an index for each item, and their ``size``.

    Attributes:
        losses: of each group ``[groups]``, and ``before``: what the choice that is best for ordinary text
        gives. own, own_before: the same of ordinary text. weights: of the groups ``[groups]``, and of
        ordinary text, that the bound comes from. bound: no choice has a smaller largest loss.
    """

    options: tuple[int, ...]
    size: int
    losses: Numbers
    before: Numbers
    own: float
    own_before: float
    weights: Numbers
    own_weight: float
    bound: float


def choose_worst(
    own: Sequence[Sequence[float]],
    groups: Sequence[Sequence[Sequence[float]]],
    sizes: Sequence[Sequence[int]],
    budget: int,
    most_own: float,
) -> WorstSolution:
    """The choice within ``budget`` whose largest loss of ``groups[group][item][option]`` is the smallest
    that was met, among those that leave the loss of ``own[item][option]`` at most ``1 + most_own`` times
    its least.
    """
    game = _Game(own, groups, sizes, budget)
    best, size = game.best(np.zeros(len(groups)), 1.0)
    before, own_before = game.losses(best), game.own(best)
    limit, largest = (1 + most_own) * own_before, float(before.max())
    weights, bound, proved = np.full(len(groups), 1 / len(groups)), 0.0, (np.zeros(len(groups)), 1.0)
    for _ in range(ROUNDS):
        for own_weight in game.own_weights(weights, limit, largest):
            options, used = game.best(weights, own_weight)
            losses, ordinary = game.losses(options), game.own(options)
            value = float(weights @ losses + own_weight * (ordinary - limit))
            if value > bound:
                bound, proved = value, (weights, own_weight)
            if ordinary <= limit and losses.max() < largest:
                best, size, largest = options, used, float(losses.max())
        if largest - bound <= _ENOUGH * largest:
            break
        if losses.any():
            weights = weights * np.exp(_STEP * (losses / losses.max() - 1))
            weights /= weights.sum()
    return WorstSolution(
        tuple(best), size, game.losses(best), before, game.own(best), own_before, *proved, bound
    )


class _Game:
    """The losses and sizes of all options, padded to the most that an item has."""

    def __init__(
        self,
        own: Sequence[Sequence[float]],
        groups: Sequence[Sequence[Sequence[float]]],
        sizes: Sequence[Sequence[int]],
        budget: int,
    ) -> None:
        self.counts, self.sizes, self.budget = [len(row) for row in sizes], sizes, budget
        self.table = np.stack([self._padded(one) for one in (own, *groups)])  # [1 + groups, items, options]

    def _padded(self, rows: Sequence[Sequence[float]]) -> Numbers:
        most = max(self.counts)
        return np.array([[*row, *(math.inf,) * (most - len(row))] for row in rows], np.float64)

    def best(self, weights: Numbers, own_weight: float) -> tuple[tuple[int, ...], int]:
        """The choice of the least weighted loss, and its size."""
        with np.errstate(invalid="ignore"):  # zero times an option that there is not
            mixed = np.tensordot([own_weight, *weights], self.table, axes=1)
        rows = [
            [math.inf if math.isnan(loss) else loss for loss in row[:count]]
            for row, count in zip(mixed.tolist(), self.counts, strict=True)
        ]
        found = choose(rows, self.sizes, self.budget)
        return found.options, found.size

    def own_weights(self, weights: Numbers, limit: float, largest: float) -> Iterator[float]:
        """Weights of ordinary text: none, then by halves towards the least that keeps its ``limit``."""
        yield 0.0
        ordinary = self.own(self.best(weights, 0.0)[0])
        # No weight keeps a limit that is nothing beside the losses: they would all round away.
        if ordinary <= limit or limit <= np.finfo(np.float64).eps * max(ordinary, largest):
            return
        low, high = -7.0, 7.0  # of the logarithm, beside what makes both losses alike
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            own_weight = math.exp(middle) * largest / limit
            kept = self.own(self.best(weights, own_weight)[0]) <= limit
            low, high = (low, middle) if kept else (middle, high)
            yield own_weight
        yield math.exp(high) * largest / limit

    def losses(self, options: Sequence[int]) -> Numbers:
        found: Numbers = self.table[1:, np.arange(len(options)), list(options)].sum(axis=1)
        return found

    def own(self, options: Sequence[int]) -> float:
        return float(self.table[0, np.arange(len(options)), list(options)].sum())
