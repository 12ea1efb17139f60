"""A heat grid as inline SVG: one cell for each layer, one row for each kind of linear."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

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
