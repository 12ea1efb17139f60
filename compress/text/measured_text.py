"""``MeasuredText``: on which of the calibration text a pass measures sensitivities, and which other text it
may look at first, so that what is chosen on one is judged on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import CalibrationError
from .calibration import Calibration
from .micro_batches import MicroBatch, first_tokens, micro_batches_of

# Calibration tokens that a pass measures sensitivities on, whatever it learns from them.
MEASURED_TOKENS = 4096
MEASURED_AT_ONCE = 1024
# The same of all protected groups together.
PROTECTED_TOKENS = 16_384


class MeasuredText:
    """Micro-batches of ``calibration``, for the pass ``who``: ``first`` are those of ordinary text that are
    measured on. So many tokens are those that are read; where less is written of them, up to ``most_read``
    times as many are.
    """

    def __init__(self, calibration: Calibration, who: str, most_read: int = 1) -> None:
        self._calibration, self._who, self._most_read = calibration, who, most_read
        self._own = micro_batches_of(calibration.own(), MEASURED_AT_ONCE)
        self.first = self._first(self._own, MEASURED_TOKENS)

    @property
    def has_others(self) -> bool:
        """Whether there is ordinary text behind what is measured on."""
        return len(self._own) > len(self.first)

    def others(self, tokens: int) -> list[MicroBatch]:
        """So many ``tokens`` of ordinary text behind what is measured on."""
        return self._first(self._own[len(self.first) :], tokens)

    def _first(self, batches: Sequence[MicroBatch], tokens: int) -> list[MicroBatch]:
        read = first_tokens(batches, self._most_read * tokens)
        return read if self._most_read == 1 else first_tokens(read, tokens, written=True)

    def apart(self, tokens: int) -> tuple[list[MicroBatch], list[MicroBatch]]:
        """What is measured on, and so many ``tokens`` of other text that observers are shown first: behind
        it, or every second micro-batch of a text that is all measured on.
        """
        if self.has_others:
            return self.first, self.others(tokens)
        if len(self._own) < 2:
            raise CalibrationError(
                f"{self._who} has {sum(batch.tokens for batch in self._own)} tokens in {len(self._own)} "
                "sequence to calibrate on, and needs 2 sequences",
                why="losses are measured on other text than the codes are found on",
                fix="give --samples 2 or more, and enough text for them",
            )
        return self._own[::2], self._first(self._own[1::2], tokens)

    def grouped(
        self, tokens: int | None = None, *, written: bool = False
    ) -> tuple[list[MicroBatch], list[str]]:
        """Micro-batches of so many ``tokens`` of ordinary text, read or ``written``, by default those that
        are measured on, and of the protected groups, and the group of each: "" for ordinary text.
        """
        found = self.first if tokens is None else first_tokens(self._own, tokens, written=written)
        names, found = [""] * len(found), list(found)
        for group in self._calibration.protected:
            mine = micro_batches_of(self._calibration.only(group), MEASURED_AT_ONCE)
            mine = first_tokens(mine, PROTECTED_TOKENS // len(self._calibration.protected))
            names += [group.name] * len(mine)
            found += mine
        return [replace(batch, number=number) for number, batch in enumerate(found)], names
