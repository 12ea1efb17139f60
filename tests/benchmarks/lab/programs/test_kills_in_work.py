"""The kills in one kind of work: they come in the step that is meant, and in no other work."""

import os
import signal
import threading
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs import kills_in_work
from edgepress.benchmarks.lab.programs.kills_in_work import CASES, Killing, work_on
from edgepress.compress.api import compress_model


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


@pytest.mark.chain
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "tune" else []) for name in CASES]
)
def test_each_kind_of_work_calls_its_progress_as_the_kills_look_for(
    name: str, pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills_in_work, "TEXT", (4, 32))
    (tmp_path / "model").symlink_to(pico_llama)
    if not CASES[name].passes:
        compress_model(str(pico_llama), scheme="W4A16-g64", output=tmp_path / "rounded")
    progress = Killing(CASES[name].label, last=0, delay=0.0)
    work_on(CASES[name], tmp_path, tmp_path / "out", progress)
    assert progress.steps > 1
