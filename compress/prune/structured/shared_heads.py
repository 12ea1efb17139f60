"""Heads of a stack whose blocks share a table of biases by distance (T5): the same ones stay in all of them.

The first block has the table, a column for each head. Those heads go without which the blocks together lose
least: what each loses without one is measured by one backward pass (Molchanov et al. 2019, arXiv 1906.10771),
and added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ....errors import RecipeError
from ...model.anatomy import Anatomy
from ...solve.elimination import lowest
from .budget import BlockPart
from .part_pruning import Widths


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
