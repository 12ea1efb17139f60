"""``Profile``: how many heads and channels each block keeps, and which blocks go; as passes, and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from .possible import Cuts

# What ``narrow`` calls the parts of blocks.
_PARTS = {"heads": "attention", "ffn": "mlp"}
_SAID = 4  # blocks that are named one by one in a line


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
