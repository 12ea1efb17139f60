"""The pages of what was planned and taken, and how processor time is split."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from edgepress.benchmarks.lab.programs.planned_cases import SHAPES, Taken, weights_of
from edgepress.benchmarks.lab.programs.planned_growth import LARGER, extrapolated
from edgepress.benchmarks.lab.programs.planned_pages import write_pages
from edgepress.benchmarks.lab.study.timed_parts import FILES, ROUNDING, Clock

PLAN = {"peak_memory": 2_000_000_000, "seconds": 50.0, "disk": 3_000_000_000}


def taken(model: str, case: str) -> Taken:
    """Memory of 400 MB and 5 bytes a weight of a block, and a second for a hundred million weights."""
    block, whole = weights_of(SHAPES[model])
    parts = {"rounding": 3.0, "reading and writing": 1.0} if case == "rtn" else {}
    return Taken(model, case, 400_000_000 + 5 * block, whole / 1e8, 9.0, 10, 5, "none", parts)


def test_pages_hold_measurements_beside_plans_and_plots(tmp_path: Path) -> None:
    lines = [(taken(model, case), PLAN) for model in ("67m", "0.5b", "7b") for case in ("rtn", "layers")]
    write_pages(lines, tmp_path)
    small, large = (tmp_path / name for name in ("plan-accuracy.md", "large-model.md"))
    assert "| 67m | rtn |" in small.read_text() and "0.5b" not in small.read_text()
    text = large.read_text()
    assert "| 7b | rtn | 1.47 / 2 (0.73) |" in text
    assert "Extrapolated, not measured" in text and "| 7b | 3 | 1 |" in text
    for name in ("memory", "time"):
        root = ElementTree.parse(tmp_path / f"large-model-{name}.svg").getroot()
        names = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"rtn", "layers"} <= set(names)


def test_a_straight_line_is_carried_on() -> None:
    found = [taken(model, "rtn") for model in ("0.5b", "7b")]
    (peak, seconds) = extrapolated(found, "rtn")[2].split(", ")
    block, whole = weights_of(LARGER["13b"])
    assert float(peak) == pytest.approx((400e6 + 5 * block) / 1e9, rel=0.05)
    assert float(seconds) == pytest.approx(whole / 1e8, abs=6)
    assert extrapolated(found[:1], "rtn") == []


def test_time_inside_other_work_counts_once() -> None:
    clock = Clock()

    def busy() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    inner = clock.timed(FILES, busy)
    clock.timed(ROUNDING, lambda: (busy(), inner()))()
    assert clock.seconds[FILES] >= 0.05 and clock.seconds[ROUNDING] >= 0.05
    assert sum(clock.seconds.values()) == pytest.approx(clock.seconds[FILES] + clock.seconds[ROUNDING])
