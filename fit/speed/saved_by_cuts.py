"""What a cut takes away of a pass beside products: attention of heads that go, norms and nodes of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import BlockAnatomy
from ..candidates import Space
from ..cuts.possible import BLOCK, Cuts

# A block, one of its parts, how many units of that stay.
_Cut = tuple[BlockAnatomy, str, int]


class Saved:
    """Of the model ``anatomy``, of which a pass takes the seconds ``beside`` products: ``whole`` with all of
    its blocks. Blocks that are alike are looked up once.
    """

    def __init__(
        self, anatomy: Anatomy, cuts: Cuts, whole: float, beside: Callable[[Anatomy], float]
    ) -> None:
        self._anatomy, self._cuts, self._whole, self._beside = anatomy, cuts, whole, beside
        self._blocks = {one.name: block for block in anatomy.blocks for one in block.linears()}
        self._known: dict[_Cut, float] = {}

    def of(self, space: Space) -> Iterator[tuple[int, int, float]]:
        """The number of a unit, how many heads or channels its options keep, and the seconds that these take
        less: of the first unit of each part that gets narrower, and of each block that goes.
        """
        met = set[tuple[int, str]]()
        for number, unit in enumerate(space.units):
            kept = {option.kept for option in unit.options if option.kept is not None}
            if not kept:
                continue
            block = self._blocks[unit.modules[0]]
            (linear,) = (one for one in block.linears() if one.name == unit.modules[0])
            item = self._cuts.item_of(linear)
            if (block.index, BLOCK) not in met and 0 in kept:
                yield number, 0, self._seconds(block, BLOCK, 0)
            if item is not None and item.key not in met:
                for count in sorted(kept - {0}):
                    yield number, count, self._seconds(block, item.part.name, count)
                met.add(item.key)
            met.add((block.index, BLOCK))

    def _seconds(self, block: BlockAnatomy, part: str, count: int) -> float:
        key = block.moved(0, 0), part, count
        if key not in self._known:
            left = [one for one in self._anatomy.blocks if one.index != block.index]
            if part != BLOCK:
                (item,) = (one for one in self._cuts.items if one.key == (block.index, part))
                narrow = item.part.narrowed(block, count)
                left = [narrow if one.index == block.index else one for one in self._anatomy.blocks]
            self._known[key] = self._whole - self._beside(replace(self._anatomy, blocks=tuple(left)))
        return self._known[key]
