"""``Cuts``: which heads, channels and blocks a model can lose in a search, and to how many.

What the passes ``narrow`` and ``layers`` refuse is none. Of mixtures of experts, encoder–decoders, models of
images or sounds, and those with blocks that have no attention or no MLP, or that are applied again, nothing
is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ...compress.model.anatomy import Anatomy
from ...compress.model.block_anatomy import Linear
from ...compress.model.checkpoint.block_sizes import without_blocks
from ...compress.model.weights import WeightSource
from ...compress.passes.layers import Layers
from ...compress.passes.narrow import Narrow
from ...compress.prune.structured.budget import BlockPart
from ...errors import RecipeError

# Of the units of a part: what may stay.
FRACTIONS = (7 / 8, 3 / 4, 5 / 8, 1 / 2)
BLOCK = "block"  # as a part of a block: the whole of it
_MULTIPLE, _WIDE = 32, 8  # of channels; where an MLP has this many of a multiple of 128, that is taken


@dataclass(frozen=True)
class Cuts:
    """The parts ``items`` that may get narrower, MLP widths being multiples of ``multiple``, and ``drops``,
    the numbers of the blocks that may go, of which no more than ``most`` do at once.
    """

    items: tuple[BlockPart, ...]
    drops: tuple[int, ...]
    multiple: int

    @property
    def most(self) -> int:
        """Half of the blocks."""
        return len(self.drops) // 2

    def levels(self, item: BlockPart) -> list[int]:
        """How many units of ``item`` may stay, ascending, but for all of them."""
        counts = item.counts
        fitting = ([one for one in counts if one <= share * counts[-1]] for share in FRACTIONS)
        return sorted({found[-1] for found in fitting if found})

    def item_of(self, linear: Linear) -> BlockPart | None:
        """The part whose units a ``linear`` has."""
        return self._owners.get(linear.name)

    @cached_property
    def _owners(self) -> dict[str, BlockPart]:
        return {one.name: item for item in self.items for one in item.part.linears(item.block)}


NONE = Cuts((), (), _MULTIPLE)


def cuts_of(source: WeightSource) -> Cuts:
    """Of the model; those without any are empty."""
    anatomy = source.anatomy
    if not _plain(anatomy):
        return NONE
    multiple = _multiple(anatomy)
    return Cuts(_items(anatomy, multiple), _drops(source), multiple)


def _plain(anatomy: Anatomy) -> bool:
    known = anatomy.kind != "encoder_decoder" and anatomy.patches is None and anatomy.hearing is None
    whole = all(one.attends and one.feed_forward is not None and one.repeats == 1 for one in anatomy.blocks)
    return known and whole and not anatomy.has_experts


def _multiple(anatomy: Anatomy) -> int:
    """So that groups of 128 fit what is left of wide MLPs."""
    widths = [block.mlp.down.in_features for block in anatomy.blocks]
    return 128 if all(wide % 128 == 0 and wide >= 128 * _WIDE for wide in widths) else _MULTIPLE


def _items(anatomy: Anatomy, multiple: int) -> tuple[BlockPart, ...]:
    """Heads and channels; channels alone where heads cannot go."""
    for parts in (("attention", "mlp"), ("mlp",)):
        step = Narrow.model_validate({"parts": parts, "multiple": multiple, "widths": {}})
        try:
            step.anatomy_after(anatomy)
        except RecipeError:
            continue
        return tuple(step.items(anatomy))
    return ()


def _drops(source: WeightSource) -> tuple[int, ...]:
    """All blocks, where some may go."""
    count = len(source.anatomy.blocks)
    if count < 2:
        return ()
    try:
        Layers(removed=(count - 1,)).anatomy_after(source.anatomy)
        without_blocks(source.reader.config, source.anatomy, range(count - 1))
    except RecipeError:
        return ()
    return tuple(range(count))
