"""How wide each part of each block stays within its room.

Widths are the same fraction of every part, or solved: units of least measured loss go first, their losses
added up, and the multiple-choice knapsack of :mod:`edgepress.compress.solve.knapsack` over all blocks is
solved exactly.

Heads of a stack whose blocks share a table of biases by distance (T5): the same ones stay in all of them.

The first block has the table, a column for each head. Those heads go without which the blocks together lose
least: what each loses without one is measured by one backward pass (Molchanov et al. 2019, arXiv 1906.10771),
and added up.

What the model loses without units: each alone, and the worst of them together, when what stays is
refitted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor

from ....errors import RecipeError
from ...measure.fisher import Measure, Observer
from ...measure.sensitivity import GramLosses, InputGram, UnitLosses
from ...model.anatomy import Anatomy
from ...model.block_anatomy import BlockAnatomy
from ...solve.damped_cholesky import inverted
from ...solve.elimination import eliminate, lowest
from ...solve.knapsack import choose
from .budget import BlockPart
from .part_pruning import Importance, Widths
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


def tables_of(anatomy: Anatomy) -> dict[int, str]:
    """By the number of a block that has a table for its stack, the table's stored name."""
    return {
        block.index: f"{name}.weight"
        for name in anatomy.position_biases
        for block in anatomy.blocks
        if name.startswith(f"{block.prefix}.")
    }


def check_shared(anatomy: Anatomy, items: Sequence[BlockPart], *, solved: bool, importance: str) -> None:
    """Refuse what blocks that share a table cannot lose."""
    heads = [item for item in items if item.part.name != "ffn"]
    if not anatomy.position_biases or not heads:
        return
    why = "a block that lost heads would read those of others"
    if len(tables_of(anatomy)) < len(anatomy.position_biases):
        raise RecipeError(
            f"one table of biases by distance serves the heads of all blocks of a {anatomy.model_type}",
            why=why,
            fix="cut its MLPs alone: parts: [mlp]",
        )
    if solved or importance != "taylor":
        raise RecipeError(
            f"one table of biases by distance serves the heads of all blocks of a stack of a "
            f"{anatomy.model_type}, which lose the same ones",
            why=why,
            fix="set widths: uniform and importance: taylor, or cut its MLPs alone: parts: [mlp]",
        )
    for stack in anatomy.ranges():
        for name in ("heads", "cross_heads"):
            mine = [item for item in heads if item.block.index in stack and item.part.name == name]
            if len(mine) not in (0, len(stack)):
                raise RecipeError(
                    f"{len(mine)} of the {len(stack)} blocks of a stack would lose heads ({name}), which "
                    f"blocks of a {anatomy.model_type} lose together",
                    fix="let targets and ignore name o of all of its blocks, or of none",
                )


def shared_units(
    anatomy: Anatomy, items: Sequence[BlockPart], widths: Widths, losses: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The heads that stay ``[kept]``, ascending, by the reader of each block that shares a table.

    ``losses [heads]`` are the measured ones without each head, by reader.
    """
    found: dict[str, Tensor] = {}
    for start in tables_of(anatomy):
        stack = next(stack for stack in anatomy.ranges() if start in stack)
        mine = [item for item in items if item.block.index in stack and item.part.name == "heads"]
        if not mine:
            continue
        readers = [item.part.reader(item.block).name for item in mine]
        total = torch.stack([losses[name] for name in readers]).sum(0)
        stays = torch.ones(len(total), dtype=torch.bool)
        stays[lowest(total, 1, len(total) - widths[mine[0].key])] = False
        found |= dict.fromkeys(readers, stays.nonzero().flatten())
    return found


def measure_of(
    items: Sequence[BlockPart], importance: Importance, damping: float, *, counts: bool
) -> Measure:
    """By reader the loss without each unit alone, where units go by that; with ``counts``, by
    :func:`refitted`, the loss with each count of an item, when what stays is refitted.
    """

    def measure(block: BlockAnatomy, weight: Callable[[str], Tensor]) -> dict[str, Observer]:
        found: dict[str, Observer] = {}
        for item in (item for item in items if item.block.index == block.index):
            reader = item.part.reader(block)
            if importance == "taylor":
                units = reader.in_features // item.part.unit(block)
                found[reader.name] = UnitLosses(reader.name, units)
            if counts:
                own = weight(reader.name)
                losses = partial(refit_losses, item, own, damping=damping)
                found[refitted(item)] = GramLosses(reader.name, own, losses)
        return found

    return measure


def refitted(item: BlockPart) -> str:
    """The name of the losses of an item, when what stays is refitted."""
    return f"{item.part.reader(item.block).name}.refit"


def refit_losses(item: BlockPart, weight: Tensor, measured: InputGram, damping: float) -> list[float]:
    """The loss with each count of an item, when what stays compensates for what goes.

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
