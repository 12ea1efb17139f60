"""Horizontal bars as inline SVG: a label, a length and a number each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from ..records.conditions import clip
from .svg import drawing, element

# Widths at 12 user units in DejaVu Sans, the widest of common interface fonts.
_NARROW, _WIDE = frozenset("ijlftrI.,:;'|()[] "), frozenset("mwMW%@")


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
