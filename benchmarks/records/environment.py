"""Where measurements were taken: machines and runtimes as lists of names and values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import numerals
from .record import Measurement

LONGEST = 400
# What changes from line to line on one machine, and the lists that have a place of their own.
PASSING = ("available", "placement", "nodes_by_provider")


@dataclass(frozen=True)
class Facts:
    """A titled list of names and values, for instance one machine."""

    title: str
    items: tuple[tuple[str, str], ...]


def environments(lines: Sequence[Measurement]) -> list[Facts]:
    """Each distinct machine and each distinct runtime once."""
    found = []
    for title, values in (
        ("Machine", [line.device for line in lines]),
        ("Runtime", [{**line.runtime, "measured with": _tool(line)} for line in lines if line.runtime]),
    ):
        flat = [dict(flatten(_lasting(value))) for value in values]
        distinct = [one for place, one in enumerate(flat) if one and one not in flat[:place]]
        fullest = [one for one in distinct if not any(one.items() < other.items() for other in distinct)]
        for number, facts in enumerate(fullest, 1):
            name = title if len(fullest) == 1 else f"{title} {number}"
            found.append(Facts(name, tuple(facts.items())))
    return found


def _lasting(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: inner for key, inner in value.items() if key not in PASSING}
    return {key: _lasting(inner) if isinstance(inner, Mapping) else inner for key, inner in kept.items()}


def _tool(line: Measurement) -> str:
    return f"{line.tool.get('name', '')} {line.tool.get('version', '')}".strip()


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as ``outer inner`` names; what is empty is left out."""
    items: list[tuple[str, str]] = []
    for key, inner in value.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(inner, Mapping):
            items += flatten(inner, name)
        elif isinstance(inner, list | tuple):
            texts = [_scalar(name, x) if not isinstance(x, Mapping) else _pairs(x) for x in inner]
            items += [(name, clip(", ".join(texts)))] if texts else []
        elif inner is not None and inner != "":
            items.append((name, clip(_scalar(name, inner))))
    return items


def _pairs(value: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {text}" for name, text in flatten(value))


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000_000 and ("memory" in name or "bytes" in name):
        return (
            f"{numerals.significant(value / 1e9)} GB" if value >= 10**9 else f"{numerals.megabytes(value)} MB"
        )
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clip(text: str, length: int = LONGEST) -> str:
    """Text that cannot flood the page."""
    return text if len(text) <= length else text[: length - 1] + "…"
