"""What a trial took is the time of all runs on it, killed ones too."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from edgepress.compress.pipeline.journal import write_sealed
from edgepress.fit.trial_clock import TrialClock


def test_runs_add_up_whatever_ends_them(tmp_path: Path) -> None:
    assert TrialClock(tmp_path).seconds == 0
    with pytest.raises(KeyboardInterrupt), TrialClock(tmp_path).running():
        time.sleep(0.02)
        raise KeyboardInterrupt
    first = TrialClock(tmp_path).seconds
    assert first >= 0.02
    clock = TrialClock(tmp_path)
    with clock.running():
        time.sleep(0.02)
    assert clock.seconds == TrialClock(tmp_path).seconds >= first + 0.02


def test_a_killed_run_counts_until_the_last_file_that_it_wrote(tmp_path: Path) -> None:
    now = time.time()
    write_sealed(tmp_path / "seconds.json", {"seconds": 5.0, "begun": now - 100})
    (tmp_path / ".checkpoint.partial").mkdir()
    (tmp_path / ".checkpoint.partial" / "block").touch()
    for path in tmp_path.rglob("*"):
        os.utime(path, (now - 90, now - 90))
    assert TrialClock(tmp_path).seconds == pytest.approx(15, abs=0.1)
    with TrialClock(tmp_path).running():
        pass
    assert TrialClock(tmp_path).seconds == pytest.approx(15, abs=1)


def test_a_file_that_another_process_removes_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sealed(tmp_path / "seconds.json", {"seconds": 5.0, "begun": time.time()})
    monkeypatch.setattr(os, "walk", lambda _: [(tmp_path, [], ["removed", "seconds.json"])])
    assert TrialClock(tmp_path).seconds == pytest.approx(5, abs=1)
