"""How wide each part of each block stays under one budget: the same share, or as measured.

Measured: what the model loses with each width (units of least measured loss go first, their losses added),
and the multiple-choice knapsack of :mod:`edgepress.compress.solve.knapsack` over all blocks, solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from torch import Tensor

from ....errors import RecipeError
from ...measure.output_fisher import InputGram
from ...model.anatomy import Anatomy
from ...model.block_anatomy import BlockAnatomy
from ...solve.damped_cholesky import inverted
from ...solve.knapsack import choose
from .budget_cost import WEIGHTS, Budget
from .elimination import eliminate
from .part import Part


@dataclass(frozen=True)
class Item:
    """A part of a block that may be narrowed, with the ``counts`` of units it may keep."""

    block: BlockAnatomy
    part: Part
    budget: Budget = WEIGHTS

    @property
    def key(self) -> tuple[int, str]:
        """The block's index and the part's name."""
        return self.block.index, self.part.name

    @property
    def counts(self) -> Sequence[int]:
        """How many units may be kept, ascending."""
        return self.part.counts(self.block)

    def price(self, count: int) -> int:
        """What the budget counts of the part with ``count`` units."""
        names = {linear.name for linear in self.part.linears(self.block)}
        narrow = self.part.narrowed(self.block, count)
        price = sum(self.budget.linear(linear) for linear in narrow.linears() if linear.name in names)
        return price + self.budget.attention(narrow.attention) * (narrow.attention.o.name in names)


def room_for(items: Sequence[Item], anatomy: Anatomy, keep: float, budget: Budget = WEIGHTS) -> int:
    """What ``items`` may cost so that the model keeps the share ``keep`` of its price.

    Raises:
        RecipeError: even at their narrowest the items exceed it; says the least share that can be kept.
    """
    total = budget.total(anatomy)
    others = total - sum(item.price(item.counts[-1]) for item in items)
    least = sum(item.price(item.counts[0]) for item in items)
    if others + least > keep * total:
        share = (others + least) / total
        kind = "weights of the blocks" if budget.of == "parameters" else f"{budget.of} of the model"
        raise RecipeError(
            f"keeping {keep:.0%} of the {kind} would take more than all that may go",
            fix=f"keep at least {share:.3f}, or prune other parts too (passes ffn, heads, narrow, layers)",
        )
    return int(keep * total) - others


def uniform(items: Sequence[Item], room: int) -> dict[tuple[int, str], int]:
    """The same share of units of every item, the largest that fits ``room``."""
    shares = sorted({count / item.counts[-1] for item in items for count in item.counts})

    def at(share: float) -> dict[Item, int]:
        reached = {item: [n for n in item.counts if n <= share * item.counts[-1]] for item in items}
        return {item: counts[-1] if counts else item.counts[0] for item, counts in reached.items()}

    fitting = [share for share in shares if sum(item.price(n) for item, n in at(share).items()) <= room]
    return {item.key: count for item, count in at(fitting[-1] if fitting else 0.0).items()}


def solved(
    items: Sequence[Item], room: int, costs: Mapping[tuple[int, str], Sequence[float]]
) -> tuple[dict[tuple[int, str], int], float]:
    """The widths of least cost within ``room``, and that cost; ``costs`` by item, one for each count."""
    sizes = [[item.price(count) for count in item.counts] for item in items]
    choice = choose([costs[item.key] for item in items], sizes, room)
    picked = zip(items, choice.options, strict=True)
    return {item.key: item.counts[option] for item, option in picked}, choice.cost


def repaired_costs(item: Item, weight: Tensor, measured: InputGram, damping: float) -> list[float]:
    """The damage with each count of an item, when what stays makes up for what goes.

    ``weight [out, in]`` is the reader's. A Gram that cannot be inverted makes every cut cost without bound.
    """
    counts, partitions = list(item.counts), item.part.partitions(item.block)
    inverse = inverted(measured.gram, damping)
    if inverse is None:
        return [float("inf")] * (len(counts) - 1) + [0.0]
    rounds = [(more - fewer) // partitions for fewer, more in pairwise(counts)][::-1]
    scaled = weight * measured.output_fisher.sqrt().unsqueeze(1)
    _, raised = eliminate(scaled, inverse, item.part.unit(item.block), partitions, rounds)
    return [0.0, *accumulate(raised)][::-1]
