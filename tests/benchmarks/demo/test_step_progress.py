"""A step of the demo shows how far it is, and leaves its notes out."""

from __future__ import annotations

import pytest
from edgepress.benchmarks.demo.step_progress import StepProgress
from edgepress.terminal.progress import Lines


def test_tasks_are_shown_and_notes_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(Lines(interval=0))
    progress.note("plan: 0.84 GB of memory")
    with progress.task("proving the graph", 1) as task:
        task.advance(1)
    assert capsys.readouterr().err.startswith("proving the graph: 100 %")
    progress.note("published")
    assert capsys.readouterr().err == ""
