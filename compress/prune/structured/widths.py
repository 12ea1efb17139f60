"""How wide each part of each block stays within its room.

Widths are the same fraction of every part, or solved: units of least measured loss go first, their losses
added up, and the multiple-choice knapsack of :mod:`edgepress.compress.solve.knapsack` over all blocks is
solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ....errors import RecipeError
from ...model.anatomy import Anatomy
from ...model.block_anatomy import BlockAnatomy
from ...solve.knapsack import choose
from .budget import BlockPart
from .part_pruning import Widths
from .units import PrunablePart

WidthChoice = Literal["solved", "uniform"]
# Units that the parts of a block keep, by its number.
GivenWidths = dict[int, dict[Literal["heads", "cross_heads", "ffn"], int]]


def uniform(items: Sequence[BlockPart], room: int) -> dict[tuple[int, str], int]:
    """The same fraction of units of every item, the largest that fits ``room``."""
    fractions = sorted({count / item.counts[-1] for item in items for count in item.counts})

    def at(fraction: float) -> dict[BlockPart, int]:
        reached = {item: [n for n in item.counts if n <= fraction * item.counts[-1]] for item in items}
        return {item: counts[-1] if counts else item.counts[0] for item, counts in reached.items()}

    fitting = [one for one in fractions if sum(item.cost(n) for item, n in at(one).items()) <= room]
    return {item.key: count for item, count in at(fitting[-1] if fitting else 0.0).items()}


def odd(items: Sequence[BlockPart], room: int) -> dict[tuple[int, str], int]:
    """Odd multiples of about the size of the uniform widths, in the place of solved ones, which are not known
    before they are solved.

    Those may be any multiples: groups (powers of two) that would not divide each of them do not divide odd
    ones either, and are refused before any work.
    """
    widths = uniform(items, room)
    # What one item is too narrow by, the next ones are wider.
    spare = (room - sum(item.cost(widths[item.key]) for item in items)) / len(items)
    owed = 0.0
    for item in items:
        owed += item.cost(widths[item.key]) + spare
        counts = (n for n in item.counts if n // item.counts[0] % 2)
        widths[item.key] = min(counts, key=lambda n: abs(item.cost(n) - owed))
        owed -= item.cost(widths[item.key])
    return widths


def solved(
    items: Sequence[BlockPart], room: int, losses: Mapping[tuple[int, str], Sequence[float]]
) -> tuple[dict[tuple[int, str], int], float]:
    """The widths of least loss within ``room``, and that loss; ``losses`` by item, one for each count."""
    sizes = [[item.cost(count) for count in item.counts] for item in items]
    choice = choose([losses[item.key] for item in items], sizes, room)
    picked = zip(items, choice.options, strict=True)
    return {item.key: item.counts[option] for item, option in picked}, choice.cost


def given(items: Sequence[BlockPart], widths: GivenWidths) -> dict[tuple[int, str], int]:
    """The ``widths`` by item."""
    counts = {item.key: item.counts for item in items}
    found = {(block, str(part)): count for block, parts in widths.items() for part, count in parts.items()}
    for (block, part), count in found.items():
        if (block, part) not in counts:
            raise RecipeError(
                f"narrow: widths give {count} {part} to block {block}, which loses none",
                fix=f"blocks have the numbers 0 to {max(block for block, _ in counts)}; their parts are "
                f"{', '.join(sorted({part for _, part in counts}))}",
            )
        if count not in (known := counts[block, part]):
            near = sorted(sorted(known, key=lambda one: abs(one - count))[:2])
            raise RecipeError(
                f"narrow: block {block} cannot keep {count} of {known[-1]} {part}",
                fix=f"give {' or '.join(map(str, near))}, or another multiple",
            )
    return found


def narrowed(anatomy: Anatomy, parts: Sequence[PrunablePart], widths: Widths) -> Anatomy:
    """``anatomy`` with its blocks at ``widths``."""

    def narrow(block: BlockAnatomy) -> BlockAnatomy:
        for part in parts:
            count = widths.get((block.index, part.name))
            block = block if count is None else part.narrowed(block, count)
        return block

    return replace(anatomy, blocks=tuple(narrow(block) for block in anatomy.blocks))
