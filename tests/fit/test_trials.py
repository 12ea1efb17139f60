"""What trials have in common: slices that a budget bounds are calibrated with, where text is read at all."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.pipeline.journal import write_sealed
from edgepress.fit.asked.texts import Texts
from edgepress.fit.budgets import parse
from edgepress.fit.quantities import SLICE_KL
from edgepress.fit.setting import Setting
from edgepress.fit.trials import TrialClock

GPTQ, RTN = ({"passes": [{"pass": name, "scheme": "W4A16-g32"}]} for name in ("gptq", "rtn"))


@pytest.mark.parametrize(
    ("budgets", "recipe", "protected"),
    [
        ("people=0.3,languages=0.2", GPTQ, ["people", "languages"]),
        ("syntax=0.3", GPTQ, []),  # it keeps no text for calibration
        ("people=0.3", RTN, []),
    ],
)
def test_slices_of_budgets_are_protected_where_text_is_read(
    budgets: str, recipe: dict[str, Any], protected: list[str], tmp_path: Path
) -> None:
    for name in ("development", "held-out"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    texts = Texts("wikipedia", tmp_path / "development", tmp_path / "held-out")
    plain = Setting("m", "fingerprint", texts, {}, 1, [])
    setting = Setting("m", "fingerprint", texts, {}, 1, parse(SLICE_KL, budgets, []))
    assert [one.name for one in setting.protected(recipe)] == protected
    assert (setting.key_of(recipe) == plain.key_of(recipe)) == (not protected)


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
