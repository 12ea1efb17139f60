"""What a proof part by part has found so far: the largest differences, and of the parts as they ship the
largest distance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..graph.build import GraphPart
from .part_distances import Difference, require_equal, require_near

FLOAT, CODES = "with float weights", "with quantized weights and float activations"


class PartFindings:
    """Holds what is found to its bounds, and keeps what came closest to them."""

    def __init__(self) -> None:
        self._worst: dict[str, Difference] = {}
        self._farthest: dict[str, Any] | None = None

    def equal(
        self, what: str, found: Sequence[Difference], rounding: Callable[[], float] = lambda: 0.0
    ) -> None:
        """The outputs of a part, in order: the block is named before the norm behind."""
        for one in found:
            held = require_equal(one, what, rounding)
            if what not in self._worst or held.share >= self._worst[what].share:
                self._worst[what] = held

    def near(self, found: Sequence[float], part: GraphPart, rounding: Callable[[], Sequence[float]]) -> None:
        """The distances of a ``part`` as it ships."""
        one = require_near(found, part, rounding)
        if self._farthest is None or _share(one) >= _share(self._farthest):
            self._farthest = one

    def described(self, parts: int, cases: int, *, rounds: bool) -> dict[str, Any]:
        """For the manifest, of so many ``parts`` and ``cases``; ``rounds``: anything in the graph does."""
        found = {"float": self._worst[FLOAT].described() | {"parts": parts, "cases": cases}}
        if rounds:
            found["codes"] = self._worst[CODES].described() | {"parts": parts}
        if self._farthest is not None:
            found["quantized"] = {"block": self._farthest}
        return found


def _share(found: dict[str, Any]) -> float:
    return float(found["distance"] / found["bound"])
