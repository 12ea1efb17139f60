"""Drawings as inline SVG, and scatter plots with a Pareto front.

Every text is escaped here, colours come from the page's CSS variables through class names, so that light,
dark and print need no second drawing, and each drawing carries a ``<title>`` and a ``<desc>`` for those who
cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup, escape

from ...files.escaping import printable
from ..records import conditions
from ..records.conditions import clip
from . import plot_layout
from .plot_layout import Box

GLYPH = 7.0  # width of an average character at 12 user units, on the wide side of common interface fonts
LINE = 15.0
BOTH: tuple[Mapping[str, float], ...] = ({"width": 520.0}, {"width": 350.0})
Kind = Literal["baseline", "front", "plain", "suspect", "doubtful", "predicted"]
Steps = Literal["none", "across", "up"]


@dataclass(frozen=True)
class Point:
    """A labelled point in data units. ``suspect`` points are hollow, ``doubtful`` ones crossed as well;
    ``predicted`` ones are hollow, with a line over the ``band`` of x.
    """

    x: float
    y: float
    label: str
    kind: Kind = "plain"
    band: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scale:
    """The title of an axis and whether it is logarithmic, which is then said."""

    title: str
    log: bool = False


def element(tag: str, *children: Markup, text: str = "", **attributes: object) -> Markup:
    """An element with every attribute and ``text`` escaped; ``class_`` is ``class``, ``_`` is ``-``."""
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _attribute(value))
        for name, value in attributes.items()
    )
    content = escape(printable(text)) + Markup("").join(children)
    if not content:
        return Markup("<{}{}/>").format(Markup(tag), written)
    return Markup("<{}{}>{}</{}>").format(Markup(tag), written, content, Markup(tag))


def _attribute(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else printable(str(value))


def drawing(
    identifier: str, title: str, description: str, width: float, height: float, children: Sequence[Markup]
) -> Markup:
    """The ``<svg>`` element; ``identifier`` must be unique in the page."""
    return element(
        "svg",
        element("title", text=title, id=f"{identifier}-t"),
        element("desc", text=description, id=f"{identifier}-d"),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{identifier}-t {identifier}-d",
    )


@dataclass(frozen=True)
class Figure:
    """A drawing wide and narrow, for text that is scaled down to a phone cannot be read; with what is written
    above and below it.
    """

    title: str
    wide: Markup
    narrow: Markup
    note: str = ""

    @classmethod
    def of(
        cls,
        title: str,
        identifier: str,
        draw: Callable[..., Markup],
        note: str = "",
        sizes: Sequence[Mapping[str, float]] = BOTH,
    ) -> Figure:
        """``draw`` makes the drawing of an identifier and a size."""
        wide, narrow = sizes
        return cls(title, draw(f"{identifier}-w", **wide), draw(f"{identifier}-n", **narrow), note)


def scatter(
    identifier: str,
    points: Sequence[Point],
    x: Scale,
    y: Scale,
    *,
    title: str,
    description: str,
    front: Sequence[int] = (),
    steps: Steps = "none",
    width: float = 520,
    height: float = 360,
) -> Markup:
    """A scatter plot; ``front`` are the indices of the points that a line joins from left to right, in steps
    that go ``across`` or ``up`` first: then what lies beyond the line is worse than a point on it.
    """
    count = max(3, int(width / 110))
    across = [value for p in points for value in (p.x, *(p.band or ()))]
    horizontal = plot_layout.fit(across, log=x.log, count=count)
    vertical = plot_layout.fit([p.y for p in points], log=y.log, count=5)
    names = [conditions.tick(tick) for tick in vertical.ticks]
    left = 14 + GLYPH * max(map(len, names), default=0)
    area = Box(left, 28, width - left - 10, height - 28 - 46)
    spots = [
        (area.x + area.width * horizontal.at(p.x), area.y + area.height * (1 - vertical.at(p.y)))
        for p in points
    ]
    line = _stepped([spots[i] for i in sorted(front, key=lambda i: points[i].x)], steps)
    bands = _banded(points, spots, horizontal, area)
    return drawing(
        identifier,
        title,
        description,
        width,
        height,
        [
            *_vertical_ticks(vertical, names, area, zero=y.log and any(p.y <= 0 for p in points)),
            *_horizontal_ticks(horizontal, area),
            element("text", text=clip(_titled(y), int(width / GLYPH)), x=0.0, y=12.0, class_="axis"),
            element(
                "text", text=_titled(x), x=area.x + area.width, y=height - 6, class_="axis", text_anchor="end"
            ),
            *([_polyline(line)] if len(line) > 1 else []),
            *_labels(points, spots, area, [*pairwise(line), *bands]),
            *map(_band, bands),
            *(mark for point, spot in zip(points, spots, strict=True) for mark in _mark(point, *spot)),
        ],
    )


Line = tuple[tuple[float, float], tuple[float, float]]


def _banded(
    points: Sequence[Point], spots: Sequence[tuple[float, float]], axis: plot_layout.Axis, area: Box
) -> list[Line]:
    """The ends of every band."""
    found = []
    for point, (_, y) in zip(points, spots, strict=True):
        if point.band:
            low, high = (area.x + area.width * axis.at(value) for value in point.band)
            found.append(((low, y), (high, y)))
    return found


def _band(line: Line) -> Markup:
    (low, y), (high, _) = line
    return element("path", d=f"M{low:.1f} {y - 4:.1f}v8m0-4H{high:.1f}m0-4v8", class_="band")


def _vertical_ticks(axis: plot_layout.Axis, names: Sequence[str], area: Box, *, zero: bool) -> list[Markup]:
    """Grid lines with their numbers; ``zero`` marks the foot of a logarithmic axis as 0."""
    marks: list[Markup] = []
    bottom = area.y + area.height
    for tick, name in zip(axis.ticks, names, strict=True):
        y = area.y + area.height * (1 - axis.at(tick))
        if zero and bottom - y < LINE:
            continue
        marks.append(element("path", d=f"M{area.x:.1f} {y:.1f}h{area.width:.1f}", class_="grid"))
        marks.append(element("text", text=name, x=area.x - 8, y=y + 4, class_="tick", text_anchor="end"))
    if zero:
        marks.append(element("text", text="0", x=area.x - 8, y=bottom + 4, class_="tick", text_anchor="end"))
    return marks


def _horizontal_ticks(axis: plot_layout.Axis, area: Box) -> list[Markup]:
    bottom = area.y + area.height
    marks = [element("path", d=f"M{area.x:.1f} {bottom:.1f}h{area.width:.1f}", class_="line")]
    for tick in axis.ticks:
        x = area.x + area.width * axis.at(tick)
        marks.append(element("path", d=f"M{x:.1f} {bottom:.1f}v4", class_="line"))
        name = conditions.tick(tick)
        marks.append(element("text", text=name, x=x, y=bottom + 17, class_="tick", text_anchor="middle"))
    return marks


def _titled(scale: Scale) -> str:
    return f"{scale.title} (log)" if scale.log else scale.title


def _stepped(line: list[tuple[float, float]], steps: Steps) -> list[tuple[float, float]]:
    """The line with the corners of its steps."""
    if steps == "none" or not line:
        return line
    corners = [
        (end[0], start[1]) if steps == "across" else (start[0], end[1]) for start, end in pairwise(line)
    ]
    return [line[0], *(spot for pair in zip(corners, line[1:], strict=True) for spot in pair)]


def _polyline(line: Sequence[tuple[float, float]]) -> Markup:
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in line), class_="front")


def _mark(point: Point, x: float, y: float) -> list[Markup]:
    if point.kind == "baseline":
        return [element("path", d=f"M{x - 5:.1f} {y - 5:.1f}h10v10h-10z", class_="mark baseline")]
    marks = [element("circle", cx=x, cy=y, r=5.0, class_=f"mark {point.kind}")]
    if point.kind == "doubtful":
        marks.append(element("path", d=f"M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6", class_="mark doubtful"))
    return marks


def _labels(
    points: Sequence[Point],
    spots: Sequence[tuple[float, float]],
    area: Box,
    lines: Sequence[Line],
) -> list[Markup]:
    names = [clip(point.label, int(0.7 * area.width / GLYPH)) for point in points]
    sizes = [(GLYPH * len(name) + 2, LINE) for name in names]
    soft = [box for start, end in lines for box in _along(start, end)]
    marks: list[Markup] = []
    placements = plot_layout.place(spots, sizes, area, soft)
    for point, name, (x, y), placement in zip(points, names, spots, placements, strict=True):
        box = placement.box
        if placement.leader:
            near_x = min(max(x, box.x), box.x + box.width)
            near_y = min(max(y, box.y), box.y + box.height)
            marks.append(element("path", d=f"M{x:.1f} {y:.1f}L{near_x:.1f} {near_y:.1f}", class_="leader"))
        # The anchor on the side of the point keeps the text close when the reader's font is
        # narrower than planned.
        anchor, at = ("start", box.x) if box.x >= x else ("end", box.x + box.width)
        if box.x < x < box.x + box.width:
            anchor, at = "middle", box.x + box.width / 2
        kind = f"label {point.kind}"
        marks.append(element("text", text=name, x=at, y=box.y + 11.5, class_=kind, text_anchor=anchor))
    return marks


def _along(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """Small boxes that cover a line."""
    steps = max(int(math.dist(start, end) / 4), 1)
    shares = [step / steps for step in range(steps + 1)]
    return [
        Box(start[0] + (end[0] - start[0]) * t - 2, start[1] + (end[1] - start[1]) * t - 2, 4, 4)
        for t in shares
    ]
