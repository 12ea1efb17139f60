"""``LossScale``: losses are multiplied before the way back, so that small gradients are not zero in float16.

Micikevicius et al. 2017, "Mixed Precision Training", arXiv 1710.03740, with a factor that finds its place: it
halves when a gradient overflows, and that step is skipped; after many steps without it doubles. Gradients are
divided by it again before anything reads them. It is a power of two, so that it rounds nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass

_FIRST, _LARGEST = 2.0**16, 2.0**24
_PATIENCE = 200  # steps without an overflow before it doubles


@dataclass
class LossScale:
    """``factor`` is 1 and stays, where nothing ``moves`` it: in float32 and bfloat16."""

    factor: float = 1.0
    calm: int = 0
    skipped: int = 0

    @classmethod
    def begun(cls, *, moves: bool) -> LossScale:
        """The scale of a run that begins."""
        return cls(_FIRST) if moves else cls()

    @property
    def moves(self) -> bool:
        """Whether there is a scale at all, and a gradient that overflows may be its fault."""
        return self.factor > 1

    def overflowed(self) -> None:
        """A step was skipped."""
        self.factor, self.calm = self.factor / 2, 0
        self.skipped += 1

    def held(self) -> None:
        """A step was taken."""
        self.calm += 1
        if self.moves and self.calm >= _PATIENCE:
            self.factor, self.calm = min(2 * self.factor, _LARGEST), 0
