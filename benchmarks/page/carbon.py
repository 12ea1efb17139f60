"""Grams of CO₂ from joules that were counted and the factor of a grid. Who reads a page must be able to check
the factor: it has a source and a year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import InputError

_JOULES_PER_KWH = 3.6e6
_MOST = 2000.0  # no grid emits more than burning lignite alone
_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*g/kWh\s*,\s*(\S.*?)\s*,\s*((?:19|20)[0-9]{2})\s*")


@dataclass(frozen=True)
class Grid:
    """Grams of CO₂ for a kilowatt-hour, who says so, and of which year."""

    grams_per_kwh: float
    source: str
    year: int

    def grams(self, joules: float) -> float:
        """Of so many joules."""
        return joules / _JOULES_PER_KWH * self.grams_per_kwh

    def __str__(self) -> str:
        return f"{self.grams_per_kwh:g} g/kWh ({self.source}, {self.year})"


def parse_grid(text: str) -> Grid:
    """``380 g/kWh, the agency that says so, 2023``."""
    found = _FORM.fullmatch(text)
    if found is None or float(found[1]) > _MOST:
        raise InputError(
            f"{text[:80]!r} is no factor of a grid",
            why=f"it needs grams of CO₂ for a kilowatt-hour (up to {_MOST:g}), a source and a year",
            fix="write it so: --grid '380 g/kWh, the agency that says so, 2023'",
        )
    return Grid(float(found[1]), found[2][:120], int(found[3]))
