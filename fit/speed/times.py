"""``Times``: seconds of a pass by unit and option, by the bytes of the bundle.

Products of few rows wait for their weights, which come faster to a core where the whole bundle fits into the
machine's caches: what a choice takes follows from its size too.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ..solve import Table, total


@dataclass(frozen=True)
class Times:
    """``tables [sizes][units][options]``: the seconds that add up to a pass, in bundles of no more bytes than
    each of ``sizes``, which ascend; larger ones take those of the last.
    """

    sizes: tuple[float, ...]
    tables: tuple[Table, ...]

    def step(self, size: float) -> float:
        """Of :attr:`sizes` the one that a bundle of ``size`` bytes is looked up with."""
        return self.sizes[self._index(size)]

    def within(self, size: float) -> Table:
        """Of bundles of at most ``size`` bytes."""
        return self.tables[self._index(size)]

    def seconds(self, size: float, options: Sequence[int]) -> float:
        """Of a choice that makes a bundle of ``size`` bytes."""
        return total(self.within(size), options)

    def _index(self, size: float) -> int:
        return min(bisect_left(self.sizes, size), len(self.sizes) - 1)
