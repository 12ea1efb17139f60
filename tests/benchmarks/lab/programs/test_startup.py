"""The account of a start: every row gets its numbers from a real bundle, memory comes from the kernel."""

from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs import startup
from edgepress.benchmarks.lab.programs.startup_child import STEPS, Steps, memory
from edgepress.export.api import export_bundle

pytestmark = pytest.mark.chain


def test_a_start_taken_apart_fills_every_row(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        operators: export_bundle(pico_llama, output=tmp_path / operators, operators=form, validate=False)
        for operators, form in (("edgepress", None), ("standard", "standard"))
    }
    monkeypatch.setattr(startup, "bundles", lambda *_: {"pico": made})
    rows = startup.measure(tmp_path, rounds=1)
    assert [row[0] for row in rows] == list(startup.ROWS)
    assert all(len(row) == 1 + len(startup.OPERATORS) for row in rows)
    assert not any("–" in row for row in rows)


def test_memory_in_megabytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    2000 kB\nRssAnon:\t 1000 kB\nRssFile:\t  500 kB\n")
    assert memory(status) == {"heap": 1.024, "mapped files": 0.512, "peak": 2.048}
    assert memory(tmp_path / "none") == {}


def test_steps_add_up_to_the_cpu_time_of_the_process() -> None:
    steps = Steps()
    for step in STEPS:
        steps.done(step)
    assert list(steps.milliseconds) == list(STEPS)
    assert all(value >= 0 for value in steps.milliseconds.values())
