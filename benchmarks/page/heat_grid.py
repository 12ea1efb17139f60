"""A heat grid as inline SVG, a cell a layer and a row a kind of linear; it shows error or bits by layer.

Horizontal bars as inline SVG: a label, a length and a number each.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from ...files.limits import finite_number
from ..records import conditions
from ..records.conditions import clip
from ..records.record import Subject
from .svg import GLYPH, drawing, element

# Widths at 12 user units in DejaVu Sans, the widest of common interface fonts.
_NARROW, _WIDE = frozenset("ijlftrI.,:;'|()[] "), frozenset("mwMW%@")


@dataclass(frozen=True)
class Grid:
    """A layer of a model a cell: ``levels[kind][block]`` is 0 to 8, or None for no layer.

    ``marked`` are the cells, as (kind, block), that get a dot; ``description`` says it all in a sentence.
    """

    kinds: tuple[str, ...]
    blocks: int
    levels: tuple[tuple[int | None, ...], ...]
    marked: tuple[tuple[int, int], ...] = ()
    description: str = ""


def heat_grid(identifier: str, grid: Grid, *, title: str, width: float = 520) -> Markup:
    """A row for each kind of linear and a column for each block."""
    rows, columns = grid.kinds, grid.blocks
    names = [clip(row, int(0.4 * width / GLYPH)) for row in rows]
    left = round(GLYPH * max(map(len, names), default=0)) + 10
    cell = max(min(int((width - left) / max(columns, 1)), 18), 2)
    height = 14
    marks = _cells(grid.levels, left, cell, height)
    for r, name in enumerate(names):
        y = (r + 0.5) * height + 4
        marks.append(element("text", text=name, x=left - 8, y=y, class_="tick", text_anchor="end"))
    for r, c in grid.marked:
        x, y = left + (c + 0.5) * cell - 0.5, (r + 0.5) * height - 0.5
        marks.append(element("circle", cx=x, cy=y, r=min(cell, height) / 5, class_="flag"))
    step = 5 if cell * 5 > 30 else 10
    ticks = range(0, columns, step if columns > 8 else 1)
    bottom = len(rows) * height + 13
    for c in ticks:
        x = left + (c + 0.5) * cell
        marks.append(element("text", text=str(c), x=x, y=bottom, class_="tick", text_anchor="middle"))
    return drawing(identifier, title, grid.description, width, bottom + 4, marks)


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
# How dark a cell of so many bits is, of 0 to 8.
SHADES = {2: 1, 3: 3, 4: 5, 8: 8}
_BITS = re.compile(r"W(?P<int>\d)A|(?P<fp8>FP8)|(?P<fp4>(NV|MX)FP4)")


def damage(subject: Subject) -> Grid | None:
    """The relative squared error of each layer, those not ``ok`` marked; None when no layer has an error."""
    errors = {_name(entry): _error(entry) for entry in subject.layers}
    known = {name: error for name, error in errors.items() if error is not None}
    if not known:
        return None
    statuses = {_name(entry): str(entry.get("status", "ok")) for entry in subject.layers}
    kinds = {"weights" if entry.get("error_kind") == "weight" else "outputs" for entry in subject.layers}
    worst = max(known, key=known.__getitem__)
    text = f"Error of the {' and '.join(sorted(kinds))}: median "
    text += f"{conditions.scientific(sorted(known.values())[len(known) // 2])}; "
    text += f"worst {worst} with {conditions.scientific(known[worst])}"
    failed = Counter(status for status in statuses.values() if status != "ok")
    if failed:
        text += f"; not ok (dotted): {', '.join(f'{n} {status}' for status, n in sorted(failed.items()))}"
    levels = {name: None if error is None else level(error) for name, error in errors.items()}
    return _grid(levels, {name for name, status in statuses.items() if status != "ok"}, f"{text}.")


def level(error: float) -> int:
    """0 for 1e-5 and below to 8 for 1 and above, even steps of the logarithm between."""
    if error <= LOWEST:
        return 0
    return min(LEVELS, round(LEVELS * (1 - math.log(error) / math.log(LOWEST))))


def widths(subject: Subject) -> Grid | None:
    """The bits of each quantized layer in a block; None when all have the same."""
    found = {_name(entry): bits_of(str(entry.get("scheme", ""))) for entry in subject.layers}
    bits = {name: width for name, width in found.items() if width in SHADES and BLOCK.match(name)}
    counts = sorted(Counter(bits.values()).items())
    if len(counts) < 2:
        return None
    text = ", ".join(f"{n} linear{'s' * (n > 1)} of {width} bits" for width, n in counts)
    return _grid({name: SHADES[width] for name, width in bits.items()}, (), text)


def bits_of(scheme: str) -> int | None:
    """Bits a weight of a scheme by its name; None for a float."""
    match = _BITS.match(scheme)
    if match is None:
        return None
    return int(match["int"]) if match["int"] else 8 if match["fp8"] else 4


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name", "?"))


def _error(entry: Mapping[str, Any]) -> float | None:
    return finite_number(entry.get("error"))


def _grid(layers: Mapping[str, int | None], marked: Collection[str], description: str) -> Grid:
    """The layers of blocks, by name, where they belong; a block without a layer has no column."""
    cells = {(match["kind"], int(match["block"])): name for name in layers if (match := BLOCK.match(name))}
    kinds = list(dict.fromkeys(kind for kind, _ in cells))
    blocks = sorted({block for _, block in cells})
    levels: list[list[int | None]] = [[None] * len(blocks) for _ in kinds]
    dots = []
    for (kind, block), name in cells.items():
        row, column = kinds.index(kind), blocks.index(block)
        levels[row][column] = layers[name]
        if name in marked:
            dots.append((row, column))
    return Grid(
        tuple(shortest(kinds)), len(blocks), tuple(map(tuple, levels)), tuple(sorted(dots)), description
    )


def shortest(kinds: Sequence[str]) -> list[str]:
    """Each name cut to the fewest trailing parts that no other name ends with."""
    found = []
    for kind in kinds:
        parts = kind.split(".")
        others = [f".{other}" for other in kinds if other != kind]
        suffixes = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        found.append(next((s for s in suffixes if not any(o.endswith(f".{s}") for o in others)), kind))
    return found


@dataclass(frozen=True)
class HorizontalBar:
    """One horizontal bar: ``value`` sets its length, ``text`` is written at its end."""

    label: str
    value: float
    text: str
    kind: Literal["plain", "accent", "doubtful"] = "plain"


def bars(
    identifier: str, items: Sequence[HorizontalBar], *, title: str, description: str, width: float = 520
) -> Markup:
    """Horizontal bars from the top down, label on the left and number at the end."""
    row, longest = 22.0, max((bar.value for bar in items), default=0.0) or 1.0
    left = min(max((text_width(bar.label) for bar in items), default=0.0) + 10, 0.5 * width)
    right = max((text_width(bar.text) for bar in items), default=0.0) + 10
    marks: list[Markup] = []
    for index, bar in enumerate(items):
        length = max((width - left - right) * bar.value / longest, 1.0)
        y = index * row
        shown = _fitted(bar.label, left - 10)
        marks.append(element("text", text=shown, x=left - 8, y=y + 15, class_="label", text_anchor="end"))
        marks.append(
            element("rect", x=left, y=y + 4, width=length, height=14.0, rx=2, class_=f"bar {bar.kind}")
        )
        marks.append(element("text", text=bar.text, x=left + length + 6, y=y + 15, class_="tick"))
    return drawing(identifier, title, description, width, max(row * len(items), 1.0), marks)


def text_width(text: str) -> float:
    """About how wide ``text`` is, in user units."""
    return sum(map(_glyph, text))


def _glyph(character: str) -> float:
    if character in _NARROW:
        return 5.0
    if character in _WIDE:
        return 11.7
    return 8.5 if character.isupper() else 7.6


def _fitted(text: str, width: float) -> str:
    """As much of ``text`` as ``width`` has room for."""
    return next(
        (shown for count in range(len(text), 0, -1) if text_width(shown := clip(text, count)) <= width), ""
    )
