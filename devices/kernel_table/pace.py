"""``Pace``: how far a measurement with a deadline is, in seconds: the time left that is shown is never more
than its deadline leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...terminal.progress import ProgressTask

# Cases that the first guess weighs as much as: the first that are timed are of one kind.
_GUESSED = 100


class Pace:
    """Advances ``task``, whose total are the seconds that are ``planned``.

    Args:
        limit_s: after which the measurement ends, whatever is left.
        cases: that are left. case_s: seconds that each is thought to take at first.
    """

    def __init__(
        self,
        task: ProgressTask,
        planned: float,
        limit_s: float,
        *,
        cases: int,
        case_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._task, self._planned, self._clock = task, max(planned, 1e-3), clock
        self._begun = clock()
        self._deadline = self._begun + limit_s
        self._left, self._done, self._case_s = cases, 0, case_s
        self._first: float | None = None  # when cases began to be timed
        self._shown = 0.0

    @property
    def left_s(self) -> float:
        """Seconds that are left: by the cases so far, and at most until the deadline."""
        now = self._clock()
        if self._first is None:
            expected = self._planned - (now - self._begun)
        else:
            took = now - self._first + _GUESSED * self._case_s
            expected = self._left * took / (self._done + _GUESSED)
        return max(min(expected, self._deadline - now), 0.0)

    def case(self, detail: str) -> None:
        """One more was timed, or failed."""
        self._first = self._clock() if self._first is None else self._first
        self._done, self._left = self._done + 1, max(self._left - 1, 0)
        self.tick(detail)

    def tick(self, detail: str = "") -> None:
        """Show how far it is; it never goes back."""
        passed = self._clock() - self._begun
        self._show(self._planned * passed / max(passed + self.left_s, 1e-9), detail)

    def end(self) -> None:
        """Nothing is left."""
        self._show(self._planned, "")

    def _show(self, amount: float, detail: str) -> None:
        if amount > self._shown:
            self._task.advance(amount - self._shown, detail=detail)
            self._shown = amount
