"""What layers of experts cost that no measured token came to: as much as those of the block's others.

A sensitivity of zero would give them the fewest bits, or the most zeros, for want of text alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..model.block_anatomy import BlockAnatomy
from .allocation import Costs


def with_unseen(
    blocks: Iterable[BlockAnatomy], costs: Mapping[str, Sequence[float]]
) -> tuple[dict[str, list[float]], list[str]]:
    """``costs`` by linear, a number for each choice, where layers of experts whose numbers are all zero have
    the mean of the same layer of the others; and the names of these layers.
    """
    found, unseen = {name: list(numbers) for name, numbers in costs.items()}, []
    for block in blocks:
        experts = [(*mlp.projections, mlp.down) for mlp in block.expert_mlps()]
        for same in zip(*experts, strict=True):
            names = [linear.name for linear in same if linear.name in costs]
            seen = [name for name in names if any(costs[name])]
            for name in names if seen else ():
                if name not in seen:
                    unseen.append(name)
                    columns = zip(*(costs[one] for one in seen), strict=True)
                    found[name] = [sum(column) / len(seen) for column in columns]
    return found, unseen


def costs_with_unseen(blocks: Iterable[BlockAnatomy], costs: Costs) -> tuple[Costs, list[str]]:
    """The same of the costs of each scheme."""
    numbers, unseen = with_unseen(blocks, {name: list(one.values()) for name, one in costs.items()})
    return {name: dict(zip(one, numbers[name], strict=True)) for name, one in costs.items()}, unseen
