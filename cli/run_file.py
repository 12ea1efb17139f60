"""``RunFile``: the file that a validation is recorded in, and what is written beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..terminal.progress import Terminal

if TYPE_CHECKING:
    from ..benchmarks.records.record import Measurement


@dataclass(frozen=True)
class RunFile:
    """Beside the file ``record``: of ``slices`` the model's card, and the result on a ``benchmark`` of the
    hub.
    """

    record: Path
    slices: bool
    benchmark: str | None

    @property
    def _result(self) -> Path:
        return self.record.with_suffix(".eval_results.yaml")

    def check(self) -> None:
        """Refuse files that are somebody else's, before anything is measured."""
        from ..benchmarks.records.record import refuse_foreign

        refuse_foreign(self.record)
        if self.benchmark is not None:
            from ..benchmarks.quality.eval_results import check_benchmark

            check_benchmark(self.benchmark, self._result)
        if self.slices:
            from ..benchmarks.quality.measured_card import card_beside, check_card

            check_card(card_beside(self.record))

    def write_beside(self, line: Measurement, subject: Path, terminal: Terminal) -> None:
        """Write what is asked for of ``line``, which is in the run file; say where all of it is."""
        terminal.say(f"recorded in {self.record}")
        if self.slices:
            from ..benchmarks.quality.measured_card import card_beside, write_measured_card

            card = card_beside(self.record)
            if write_measured_card(line, subject, card):
                terminal.say(f"the model card, with the group that loses most, in {card}")
        if self.benchmark is not None:
            from ..benchmarks.quality.eval_results import write_eval_results

            write_eval_results(line, self.benchmark, self._result)
            terminal.say(f"result for .eval_results/ of the model's repository in {self._result}")
