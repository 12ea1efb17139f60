"""What the model loses without units: each alone, and the worst of them together, when what stays is
refitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise

from torch import Tensor

from ...measure.fisher import Measure, Observer
from ...measure.output_fisher import GramLosses, InputGram
from ...measure.sensitivity import UnitLosses
from ...model.block_anatomy import BlockAnatomy
from ...solve.damped_cholesky import inverted
from ...solve.elimination import eliminate
from .budget import BlockPart
from .part_pruning import Importance


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
