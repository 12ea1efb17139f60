"""The report of slices for a person: of each slice the groups that lose most, and the worst of all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .significance import LEVEL

if TYPE_CHECKING:
    from rich.console import RenderableType

LEAST_P = 0.0001
SHOWN = 5  # groups of a slice; the line has all
UNITS = {
    "nats/token": "KL, nats a token",
    "nats/byte": "KL, nats a byte",
    "changed": "answers that changed",
    "distance": "1 - cosine",
    "effect": "effect size grew by",
}


def render(report: dict[str, Any]) -> RenderableType:
    """Tables for a terminal of 80 columns."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for one in report["slices"]:
        parts += [Text(""), *(_table(one) if "groups" in one else [_left(one)])]
    return Group(*parts, Text(""), Text(worst(report), style="bold"), Text(_how(report), style="dim"))


def _left(one: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    return Text(f"{one['name']}: not measured: {one['why']}", style="dim")


def _table(one: dict[str, Any]) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    unit, groups = one["unit"], one["groups"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(one["title"], no_wrap=True, max_width=34)
    beside = "others" if unit != "effect" else "before and after"
    for title in ("n", UNITS[unit], "95 % interval", beside, "p"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in sorted(groups, key=lambda group: -group["harm"])[:SHOWN]:
        low, high = group["ci95"] or (None, None)
        table.add_row(
            Text(group["group"]),
            str(group["items"]),
            number(group["harm"], unit),
            "–" if low is None else f"{number(low, unit)} … {number(high, unit)}",
            number(group["others"], unit) if unit != "effect" else effects(group),
            "–" if group["p"] is None else shown_p(group["p"]),
            style="bold red" if group["alarm"] else "",
        )
    more = len(groups) - SHOWN
    counted = f"{one['name']}, {one['items']} items" + (f"; {more} more groups lose less" if more > 0 else "")
    return [Text(counted, style="bold"), table, *(Text(said, style="dim") for said in _said(one))]


def _said(one: dict[str, Any]) -> list[str]:
    """Which groups change their answers one way, and what a test of a slice would have seen, where one was
    made.
    """
    found = [
        f"answers about {group['group']} change one way "
        f"(sign test, corrected: p {shown_p(group['p_one_way'])})"
        for group in one["groups"]
        if group.get("p_one_way", 1.0) < LEVEL
    ]
    tested = [group for group in one["groups"] if group["p"] is not None]
    seen = sorted(math.inf if (least := group["smallest_seen"]) is None else least for group in tested)
    if not seen:
        return found
    middle = seen[(len(seen) - 1) // 2]
    if middle == math.inf:
        return [*found, "in half of the groups nothing says what the test would have seen"]
    return [
        *found,
        f"in half of the groups a harm of {number(middle, one['unit'])} would be seen four times in five",
    ]


def effects(group: dict[str, Any]) -> str:
    """The effect sizes of an association in the original and in the compressed model."""
    return f"{group['effect_before']:.2f} to {group['effect_after']:.2f}"


def shown_p(p: float) -> str:
    """A probability as a person reads it; those of many tests underflow."""
    return f"{p:.2g}" if p >= LEAST_P else f"< {LEAST_P:g}"


def number(value: float | None, unit: str) -> str:
    """A harm as a person reads it."""
    if value is None:
        return "–"
    return f"{value:.1%}" if unit == "changed" else f"{value:.3g}"


def worst(report: dict[str, Any]) -> str:
    """The worst group in a sentence."""
    found, tests = report["worst"], report["tests"]
    if found is None:
        return f"no group is harmed more than the others beyond chance, by {tests} tests"
    unit = next(one["unit"] for one in report["slices"] if one["name"] == found["slice"])
    others = "" if found["others"] is None else f", the others {number(found['others'], unit)}"
    return (
        f"harmed most: {found['group']} ({found['slice']}): {number(found['harm'], unit)} "
        f"{UNITS[unit]}{others}"
    )


def _how(report: dict[str, Any]) -> str:
    return (
        "p: one-sided, that a group loses no more than the others (that an association did not grow), "
        "corrected (Holm) for "
        f"{report['tests']} tests; --json has the smallest harm that would be seen of each group"
    )
