"""``StepProgress``: how far a step of the demo is, without what its verbs say beside that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...terminal.progress import Progress, ProgressTask


class StepProgress:
    """Bars of a step, and none of its notes: the step's own line says what it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[ProgressTask]:
        """As the progress of the whole has it."""
        with self._progress.task(label, total) as task:
            yield task

    def note(self, text: str) -> None:
        """Nothing to show."""
