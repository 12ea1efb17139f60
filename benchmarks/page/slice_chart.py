"""Whom a version harms more: a row for each slice, a dot for each of its groups, by how many times it loses
what the others lose.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from ...files.limits import finite_number
from ..records import conditions
from ..records.conditions import clip
from . import svg
from .result_groups import ResultGroup, ResultRow
from .svg import GLYPH, drawing, element

MOST_CHARTS = 4
ENDS = 1 / 8, 8.0  # of the axis; what lies beyond stands at its end
TICKS = (
    (1 / 8, "⅛"),
    (1 / 4, "¼"),
    (1 / 2, "½"),
    (1.0, "as the others"),
    (2.0, "2×"),
    (4.0, "4×"),
    (8.0, "8×"),
)
ROW, EDGE, FOOT = 46.0, 8.0, 44.0
AXIS = "← loses less · loses more →"


@dataclass(frozen=True)
class Group:
    """A group of a slice: how many ``times`` what it is held ``beside``, and whether that is beyond
    chance."""

    name: str
    times: float
    alarm: bool
    beside: str = "what the others lose"


@dataclass(frozen=True)
class Strip:
    """A slice that was tested, its groups from the one that loses most."""

    title: str
    groups: tuple[Group, ...]


def slice_figures(group: ResultGroup, anchor: str) -> list[svg.Figure]:
    """A chart for each version whose slices were measured."""
    found = [(row, strips) for row in group.compressed if (strips := strips_of(row))]
    return [
        svg.Figure.of(
            row.subject.scheme,
            f"{anchor}-slices{index}",
            partial(
                chart, strips=strips, title=f"{row.subject.scheme}: what each group loses beside the others"
            ),
            worst_sentence(row) or "No group loses more than the others beyond chance.",
        )
        for index, (row, strips) in enumerate(found[:MOST_CHARTS])
    ]


def worst_sentence(row: ResultRow) -> str:
    """``Harmed most: Thai (language), 3.1× what the others lose.``; empty where none is, or none was
    measured."""
    found = worst_group(row)
    if found is None:
        return ""
    title, group = found
    return f"Harmed most: {clip(group.name, 40)} ({title}), {conditions.times(group.times)} {group.beside}."


def worst_group(row: ResultRow) -> tuple[str, Group] | None:
    """The alarm of the most times, with its slice's title."""
    alarms = [(strip.title, group) for strip in strips_of(row) for group in strip.groups if group.alarm]
    return max(alarms, key=lambda pair: pair[1].times, default=None)


def strips_of(row: ResultRow) -> list[Strip]:
    """The slices of a row's quality line that were tested, the one with the largest harm first."""
    line = row.line("quality")
    report = (line.compare or {}).get("slices") if line is not None else None
    slices = report.get("slices") if isinstance(report, dict) else None
    found = []
    for one in slices if isinstance(slices, list) else []:
        groups = tuple(sorted(_groups(one), key=lambda group: (-group.alarm, -group.times)))
        if groups:
            found.append(Strip(clip(str(one.get("title", one.get("name", ""))), 40), groups))
    return sorted(found, key=lambda strip: (-strip.groups[0].alarm, -strip.groups[0].times))


def _groups(one: Any) -> Iterator[Group]:
    """Those of a slice that were tested; what is no group is left out: lines may come from anywhere."""
    listed = one.get("groups") if isinstance(one, dict) else None
    for group in listed if isinstance(listed, list) else []:
        times = finite_number(group.get("times")) if isinstance(group, dict) else None
        if times is not None and group.get("p") is not None:
            beside = {"beside": "as strong as in the original"} if one.get("unit") == "effect" else {}
            yield Group(str(group.get("group", "")), times, group.get("alarm") is True, **beside)


def chart(identifier: str, strips: Sequence[Strip], *, title: str, width: float = 520) -> Markup:
    """One row a strip: its title and the group that loses most above, the dots of all groups below."""
    height = ROW * len(strips) + FOOT
    marks = [_tick(value, name, width, height) for value, name in TICKS]
    marks.append(
        element("text", text=AXIS, x=_at(1.0, width), y=height - 6, class_="tick", text_anchor="middle")
    )
    for place, strip in enumerate(strips):
        marks += _strip(strip, ROW * place, width)
    worst = "; ".join(
        f"{strip.title}: {strip.groups[0].name} {strip.groups[0].times:.2g} times" for strip in strips
    )
    return drawing(identifier, title, worst, width, height, marks)


def _at(times: float, width: float) -> float:
    low, high = map(math.log, ENDS)
    value = math.log(min(max(times, ENDS[0]), ENDS[1]))
    return EDGE + (width - 2 * EDGE) * (value - low) / (high - low)


def _tick(value: float, name: str, width: float, height: float) -> Markup:
    x, end = _at(value, width), height - FOOT
    anchor = {ENDS[0]: "start", ENDS[1]: "end"}.get(value, "middle")
    line = element("line", x1=x, x2=x, y1=0.0, y2=end, class_="even" if value == 1 else "grid")
    text = element("text", text=name, x=x, y=height - 26, class_="tick", text_anchor=anchor)
    return line + text


def _strip(strip: Strip, top: float, width: float) -> list[Markup]:
    first = strip.groups[0]
    figure = f" {conditions.times(first.times)}" if first.times > 0 else ""
    title = element("text", text=strip.title, x=EDGE, y=top + 16, class_="label halo")
    room = int((width - 2 * EDGE) / GLYPH) - len(strip.title) - len(figure) - 2
    name = element(
        "text",
        text=f"{clip(first.name, max(8, room))}{figure}",
        x=width - EDGE,
        y=top + 16,
        class_="label alarm halo" if first.alarm else "tick halo",
        text_anchor="end",
    )
    dots = [
        element(
            "circle", cx=_at(one.times, width), cy=top + 31, r=4.5, class_="dot alarm" if one.alarm else "dot"
        )
        for one in reversed(strip.groups)
    ]
    return [title, name, *dots]
