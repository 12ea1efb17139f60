"""Bits of each linear, laid out as kind of linear × block: how a mixed-precision plan spends its budget."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ..records.record import Subject
from .damage import BLOCK, shortest

# How dark a cell of so many bits is, of 0 to 8.
SHADES = {2: 1, 3: 3, 4: 5, 8: 8}
_BITS = re.compile(r"W(?P<int>\d)A|(?P<fp8>FP8)|(?P<fp4>(NV|MX)FP4)")


@dataclass(frozen=True)
class Widths:
    """The grid: ``levels[kind][block]`` is a shade, or None for no quantized layer; ``counts`` by bits."""

    kinds: tuple[str, ...]
    blocks: int
    levels: tuple[tuple[int | None, ...], ...]
    counts: dict[int, int]


def bits_of(scheme: str) -> int | None:
    """Bits a weight of a scheme by its name; None for a float."""
    match = _BITS.match(scheme)
    if match is None:
        return None
    return int(match["int"]) if match["int"] else 8 if match["fp8"] else 4


def widths(subject: Subject) -> Widths | None:
    """The widths of a subject's layers; None when all have the same."""
    cells: dict[tuple[str, int], int] = {}
    for entry in subject.layers:
        match, bits = BLOCK.match(str(entry.get("name", ""))), bits_of(str(entry.get("scheme", "")))
        if match and bits in SHADES:
            cells[match["kind"], int(match["block"])] = bits
    if len(set(cells.values())) < 2:
        return None
    kinds = tuple(dict.fromkeys(kind for kind, _ in cells))
    blocks = 1 + max(block for _, block in cells)
    levels: list[list[int | None]] = [[None] * blocks for _ in kinds]
    for (kind, block), bits in cells.items():
        levels[kinds.index(kind)][block] = SHADES[bits]
    counts = dict(sorted(Counter(cells.values()).items()))
    return Widths(tuple(shortest(kinds)), blocks, tuple(map(tuple, levels)), counts)
