"""The pages of what was planned and taken, and how processor time is split."""

import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from edgepress.benchmarks.lab.planned.cases import Taken, shape_of, weights_of
from edgepress.benchmarks.lab.planned.gptq_floor import OTHERS, RATE, floors, write_gptq
from edgepress.benchmarks.lab.planned.growth import LARGER, extrapolated
from edgepress.benchmarks.lab.planned.pages import write_pages
from edgepress.benchmarks.lab.planned.records import Record, keep_records
from edgepress.benchmarks.lab.study.timed_parts import FILES, KINDS, ROUNDING, Clock

PLAN = {"peak_memory": 2_000_000_000, "seconds": 50.0, "disk": 3_000_000_000}


def taken(model: str, case: str) -> Taken:
    """Memory of 400 MB and 5 bytes a weight of a block, and a second for a hundred million weights."""
    block, whole = weights_of(shape_of(model))
    parts = {"rounding": 3.0, "reading and writing": 1.0} if case == "rtn" else {}
    return Taken(model, case, 400_000_000 + 5 * block, whole / 1e8, 9.0, 10, 5, "none", parts)


def test_pages_hold_measurements_beside_plans_and_plots(tmp_path: Path) -> None:
    found = [
        Record(taken(model, case), PLAN, machine="A CPU, 2 logical CPUs")
        for model in ("67m", "0.5b", "7b")
        for case in ("rtn", "layers")
    ]
    write_pages(found, tmp_path)
    small, large = (tmp_path / name for name in ("plan-accuracy.md", "large-model.md"))
    assert "| 67m | rtn |" in small.read_text() and "0.5b" not in small.read_text()
    text = large.read_text()
    assert "| 7b | rtn | 1.47 / 2 (0.73) |" in text
    assert "Extrapolated, not measured" in text and "| 7b | 3 | 1 |" in text
    for name in ("memory", "time"):
        root = ElementTree.parse(tmp_path / f"large-model-{name}.svg").getroot()
        names = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
        assert {"rtn", "layers"} <= set(names)


def test_records_stay_and_some_blocks_are_carried_on_by_their_plans(tmp_path: Path) -> None:
    whole = {"peak_memory": 2_500_000_000, "seconds": 800.0, "disk": 9_000_000_000}
    some = Record(taken("7b-2", "tune"), PLAN, whole)
    keep_records(tmp_path, [Record(taken("0.5b", "tune"), PLAN), Record(taken("7b-2", "tune"), {})])
    write_pages(keep_records(tmp_path, [some]), tmp_path)
    text = (tmp_path / "large-model.md").read_text()
    assert "| 0.5b | tune |" in text and "| 7b-2 | tune | 1.47 / 2 (0.73) |" in text
    assert "7b-2: Llama" in text and "2 of its 32 blocks" in text
    assert "| tune | 7b-2 | 7b | 0.50 | 1.97 / 2.5 | 16.0 |" in text
    assert "| tune | 0.5b, 7b |" in text


def test_the_small_model_has_a_table_for_each_processor(tmp_path: Path) -> None:
    one, other = (Record(taken("67m", "rtn"), PLAN, machine=f"{name}, 2 logical CPUs") for name in "AB")
    assert keep_records(tmp_path, [one, other]) == keep_records(tmp_path, [one]) == [one, other]
    large = [Record(taken("7b", "rtn"), PLAN, machine=name) for name in "AB"]
    assert len(keep_records(tmp_path / "large", large)) == 1
    write_pages([one, other, large[0]], tmp_path)
    text = (tmp_path / "plan-accuracy.md").read_text()
    assert text.count("| 67m | rtn |") == 2 and "takes: A\n" in text and "takes: B\n" in text


def test_gptq_stands_beside_the_floor_of_its_arithmetic(tmp_path: Path) -> None:
    least = floors(shape_of("7b-1"), 8192)
    block, down = weights_of(shape_of("7b-1"))[0], 4096 * 14336
    assert least["forward passes"] == 8192 * (block + block - down) + 2 * 1024 * block
    parts = {kind: 1.5 * work / 1e10 for kind, work in least.items()} | dict.fromkeys(OTHERS, 0.0)
    run = Taken("7b-1", "gptq", 1, 900.0, 9.0, 1, 1, "none", parts | {RATE: 1e10})
    write_gptq(tmp_path / "page.md", [run])
    text = (tmp_path / "page.md").read_text()
    assert "(1.50) | 20 | 900 |" in text and f"{2 * sum(least.values()) / 2e10:.0f} (1.50)" in text


def test_a_straight_line_is_carried_on() -> None:
    found = [taken(model, "rtn") for model in ("0.5b", "7b")]
    (peak, seconds) = extrapolated(found, "rtn")[2].split(", ")
    block, whole = weights_of(LARGER["13b"])
    assert float(peak) == pytest.approx((400e6 + 5 * block) / 1e9, rel=0.05)
    assert float(seconds) == pytest.approx(whole / 1e8, abs=6)
    assert extrapolated(found[:1], "rtn") == []
    whole = replace(found[0], peak=found[-1].peak + 1)
    assert extrapolated([whole, found[-1]], "rtn") == []


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


def test_every_function_that_is_timed_is_there() -> None:
    for functions in KINDS.values():
        for owner, name in functions:
            assert callable(getattr(owner, name, None)), f"{owner.__name__} has no {name}"
