"""Steps run once, and again exactly when their identity or their result changed."""

from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.demo.resumable import ResumableStep, StepProgress, run_steps
from edgepress.terminal.progress import Lines, Silent


class Bench:
    """Two steps that write a file each; the second depends on the first's content."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second, self.journal = folder / "one", folder / "two", folder / "journal.json"
        self.setting, self.ran = 1, list[str]()

    def _make(self, path: Path) -> None:
        self.ran.append(path.name)
        path.write_text(f"{path.name} {self.setting}", encoding="utf-8")

    def _content(self) -> dict[str, Any]:
        return {"input": self.first.read_text(encoding="utf-8")}

    def run(self, progress: Any = None) -> list[str]:
        self.ran.clear()
        one = ResumableStep(
            "one",
            "first",
            10,
            lambda: {"n": self.setting},
            self.first.is_file,
            lambda: self._make(self.first),
        )
        two = ResumableStep(
            "two", "second", 20, self._content, self.second.is_file, lambda: self._make(self.second)
        )
        return run_steps([one, two], self.journal, progress or Silent())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_second_run_skips_everything(bench: Bench) -> None:
    assert bench.run() == []
    assert bench.ran == ["one", "two"]
    assert bench.run() == ["first", "second"]
    assert bench.ran == []


def test_a_changed_setting_runs_what_depends_on_it(bench: Bench) -> None:
    bench.run()
    bench.setting = 2
    assert bench.run() == []
    assert bench.ran == ["one", "two"]


def test_a_lost_result_is_made_again_and_the_rest_kept(bench: Bench) -> None:
    bench.run()
    bench.first.unlink()
    assert bench.run() == ["second"]
    assert bench.ran == ["one"]


def test_a_failure_keeps_the_steps_before_it(bench: Bench, tmp_path: Path) -> None:
    bench.second = tmp_path / "missing" / "two"
    with pytest.raises(FileNotFoundError):
        bench.run()
    bench.second = tmp_path / "two"
    assert bench.run() == ["first"]


def test_each_step_is_titled_with_what_is_left(bench: Bench) -> None:
    notes: list[str] = []

    class Notes(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    bench.run(Notes())
    assert notes[0] == "[1/2] first  (0:00, about 30 s left)"
    assert notes[1].startswith("[2/2] second  (0:00, about ")
    bench.run(Notes())
    assert notes[2] == "[1/2] first: already there and verified, skipped"


def test_tasks_are_shown_and_notes_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    progress = StepProgress(Lines(interval=0))
    progress.note("plan: 0.84 GB of memory")
    with progress.task("proving the graph", 1) as task:
        task.advance(1)
    assert capsys.readouterr().err.startswith("proving the graph: 100 %")
    progress.note("published")
    assert capsys.readouterr().err == ""
