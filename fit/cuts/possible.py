"""``Cuts``: which heads, channels and blocks a model can lose in a search, and to how many.

What the passes ``narrow`` and ``layers`` refuse is none. Of mixtures of experts, encoder–decoders, models of
images or sounds, and those with blocks that have no attention or no MLP, or that are applied again, nothing
is cut.

``Profile``: how many heads and channels each block keeps, and which blocks go; as passes, and in words.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

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
# What ``narrow`` calls the parts of blocks.
_PARTS = {"heads": "attention", "ffn": "mlp"}
_SAID = 4  # blocks that are named one by one in a line


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


@dataclass(frozen=True)
class Profile:
    """``kept``: block, part (``heads``, ``ffn``), and how many of its units stay, where some go; ``removed``:
    the blocks that go. Empty where nothing is cut.
    """

    kept: tuple[tuple[int, str, int], ...] = ()
    removed: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.kept or self.removed)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """What :attr:`as_json` gave."""
        return cls(tuple((int(b), str(p), int(n)) for b, p, n in found["kept"]), tuple(found["removed"]))

    @property
    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def of(self, block: int, part: str) -> int | None:
        """What the part keeps: None for all of it, 0 where the block goes."""
        if block in self.removed:
            return 0
        return next((count for *key, count in self.kept if key == [block, part]), None)

    def passes(self, multiple: int) -> tuple[dict[str, Any], ...]:
        """Of a recipe, with the model's own numbers of blocks: narrower first, then without some."""
        found: list[dict[str, Any]] = []
        if self.kept:
            widths: dict[str, dict[str, int]] = {}
            for block, part, count in self.kept:
                widths.setdefault(f"{block}", {})[part] = count
            parts = [name for part, name in _PARTS.items() if any(part == one for _, one, _ in self.kept)]
            found.append({"pass": "narrow", "parts": parts, "multiple": multiple, "widths": widths})
        if self.removed:
            found.append({"pass": "layers", "removed": list(self.removed)})
        return tuple(found)

    def lines(self, cuts: Cuts) -> list[str]:
        """``block 3: 5 of 8 heads, 96 of 128 channels``, ``block 7 goes``."""
        words: dict[int, list[str]] = {}
        whole = {item.key: (item.counts[-1], item.block.attention) for item in cuts.items}
        for block, part, count in self.kept:
            most, attention = whole[block, part]
            heads = "heads" if attention.heads == attention.kv_heads else "key/value heads"
            name = "channels" if part == "ffn" else heads
            words.setdefault(block, []).append(f"{count} of {most} {name}")
        said = {block: f"block {block}: {', '.join(each)}" for block, each in words.items()}
        said |= {block: f"block {block} goes" for block in self.removed}
        return [said[block] for block in sorted(said)]

    def line(self, cuts: Cuts) -> str:
        """The same in a line, if need be in numbers."""
        lines = self.lines(cuts)
        if len(lines) <= _SAID:
            return "; ".join(lines)
        gone, narrower = len(self.removed), len(lines) - len(self.removed)
        counts = {f"{narrower} blocks narrower": narrower, f"{gone} blocks gone": gone}
        return ", ".join(said for said, count in counts.items() if count)
