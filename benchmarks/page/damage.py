"""Per-layer damage: the relative squared error of each linear, laid out as kind of linear × block.

The error is that of the outputs on the calibration text, or of the weights where a pass uses no text;
``measured_on`` says which. Errors are shown on one fixed logarithmic scale, 1e-5 to 1, so that two grids on a
page can be compared.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..records.record import Subject

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
