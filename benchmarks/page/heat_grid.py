"""A heat grid as inline SVG, a cell a layer and a row a kind of linear; it shows error or bits by layer."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ..records.record import Subject
from .svg import GLYPH, clip, drawing, element


def heat_grid(
    identifier: str,
    rows: Sequence[str],
    columns: int,
    levels: Sequence[Sequence[int | None]],
    marked: Sequence[tuple[int, int]],
    *,
    title: str,
    description: str,
    width: float = 520,
) -> Markup:
    """A grid of cells: ``levels[row][column]`` is 0 to 8, or None for no cell; ``marked`` cells get a dot."""
    names = [clip(row, int(0.4 * width / GLYPH)) for row in rows]
    left = round(GLYPH * max(map(len, names), default=0)) + 10
    cell = max(min(int((width - left) / max(columns, 1)), 18), 2)
    height = 14
    marks = _cells(levels, left, cell, height)
    for r, name in enumerate(names):
        y = (r + 0.5) * height + 4
        marks.append(element("text", text=name, x=left - 8, y=y, class_="tick", text_anchor="end"))
    for r, c in marked:
        x, y = left + (c + 0.5) * cell - 0.5, (r + 0.5) * height - 0.5
        marks.append(element("circle", cx=x, cy=y, r=min(cell, height) / 5, class_="flag"))
    step = 5 if cell * 5 > 30 else 10
    ticks = range(0, columns, step if columns > 8 else 1)
    bottom = len(rows) * height + 13
    for c in ticks:
        x = left + (c + 0.5) * cell
        marks.append(element("text", text=str(c), x=x, y=bottom, class_="tick", text_anchor="middle"))
    return drawing(identifier, title, description, width, bottom + 4, marks)


def _cells(levels: Sequence[Sequence[int | None]], left: int, cell: int, height: int) -> list[Markup]:
    """One path for each level: moves are relative, because a page may hold thousands of cells."""
    paths: dict[int, str] = {}
    last: dict[int, tuple[int, int]] = {}
    for r, row in enumerate(levels):
        for c, level in enumerate(row):
            if level is None:
                continue
            x, y = left + c * cell, r * height
            before = last.get(level, (0, 0))
            moved = f"m{x - before[0]} {y - before[1]}h{cell - 1}v{height - 1}h{1 - cell}z"
            paths[level] = paths.get(level, "") + moved
            last[level] = (x, y)
    return [element("path", d=path, class_=f"heat{level}") for level, path in sorted(paths.items())]


LEVELS = 8
LOWEST = 1e-5
BLOCK = re.compile(r"^.*?\.(?P<block>\d{1,6})\.(?P<kind>.+)$")


@dataclass(frozen=True)
class Layer:
    """One compressed linear; ``error`` is its relative squared error or None where it was not measured."""

    name: str
    status: str
    error: float | None
    measured_on: str


@dataclass(frozen=True)
class Damage:
    """The grid: ``levels[kind][block]`` is 0 … 8, or None for no layer. ``flagged`` are cells not ``ok``."""

    kinds: tuple[str, ...]
    blocks: int
    levels: tuple[tuple[int | None, ...], ...]
    flagged: tuple[tuple[int, int], ...]
    worst: tuple[Layer, ...]
    median: float
    statuses: dict[str, int]
    measured_on: str


def damage(subject: Subject, *, worst: int = 5) -> Damage | None:
    """The damage of a subject's layers, or None when no layer has an error."""
    layers = [_layer(entry) for entry in subject.layers]
    errors = sorted(layer.error for layer in layers if layer.error is not None)
    if not errors:
        return None
    cells: dict[tuple[str, int], Layer] = {}
    for layer in layers:
        match = BLOCK.match(layer.name)
        if match:
            cells[match["kind"], int(match["block"])] = layer
    kinds = tuple(dict.fromkeys(kind for kind, _ in cells))
    blocks = sorted({block for _, block in cells})
    column = {block: position for position, block in enumerate(blocks)}
    levels: list[list[int | None]] = [[None] * len(blocks) for _ in kinds]
    flagged = []
    for (kind, block), layer in cells.items():
        row = kinds.index(kind)
        levels[row][column[block]] = level(layer.error) if layer.error is not None else None
        if layer.status != "ok":
            flagged.append((row, column[block]))
    ranked = sorted((x for x in layers if x.error is not None), key=lambda x: -(x.error or 0.0))
    return Damage(
        tuple(shortest(kinds)),
        len(blocks),
        tuple(map(tuple, levels)),
        tuple(sorted(flagged)),
        tuple(ranked[:worst]),
        errors[len(errors) // 2],
        dict(Counter(layer.status for layer in layers)),
        " and ".join(sorted({layer.measured_on for layer in layers})),
    )


def level(error: float) -> int:
    """0 for 1e-5 and below to 8 for 1 and above, even steps of the logarithm between."""
    if error <= LOWEST:
        return 0
    return min(LEVELS, round(LEVELS * (1 - math.log(error) / math.log(LOWEST))))


def _layer(entry: dict[str, object]) -> Layer:
    error = entry.get("error")
    usable = isinstance(error, int | float) and not isinstance(error, bool) and math.isfinite(error)
    number = float(error) if usable and isinstance(error, int | float) else None
    measured_on = "weights" if entry.get("error_kind") == "weight" else "outputs"
    return Layer(str(entry.get("name", "?")), str(entry.get("status", "ok")), number, measured_on)


def shortest(kinds: Sequence[str]) -> list[str]:
    """Each name cut to the fewest trailing parts that no other name ends with."""
    found = []
    for kind in kinds:
        parts = kind.split(".")
        others = [f".{other}" for other in kinds if other != kind]
        suffixes = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        found.append(next((s for s in suffixes if not any(o.endswith(f".{s}") for o in others)), kind))
    return found


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
