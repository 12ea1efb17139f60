"""The kills in one kind of work: they come in the step that is meant, and in no other work."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from edgepress.benchmarks.lab.programs.kills_in_work import Killing


def test_a_process_ends_itself_within_the_step_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, killed = threading.Event(), []

    def kill(process: int, number: int) -> None:
        killed.append((process, number))
        ended.set()

    monkeypatch.setattr(os, "kill", kill)
    progress = Killing("learning", last=2, delay=0.0)
    with progress.task("asking the original", 5) as task:
        for _ in range(5):
            task.advance()
    assert progress.steps == 0
    with progress.task("learning", 3) as task:
        task.advance()
        assert not ended.wait(0.1)
        task.advance()
        assert ended.wait(10)
        task.advance()
    assert progress.steps == 3 and killed == [(os.getpid(), signal.SIGKILL)]
