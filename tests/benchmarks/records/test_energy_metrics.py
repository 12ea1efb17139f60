"""A meter's log that comes after the measurement: its joules go to the lines that wait for it alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.energy_metrics import import_meter
from edgepress.benchmarks.records.energy_record import Energy, EnergyWindow
from edgepress.benchmarks.records.record import Measurement
from edgepress.cli.entry import run
from edgepress.devices.energy import Meter
from edgepress.devices.meters import logged
from edgepress.errors import EdgepressError, InputError

BEGAN = 1_700_000_000.0


def window(at: float, units: int = 0, seconds: float = 10.0) -> EnergyWindow:
    return EnergyWindow(seconds=seconds, began=BEGAN + at, joules=0, runs=1, units=units)


@pytest.fixture
def waiting(make_latency: Any, make_subject: Any, make_metric: Any, tmp_path: Path) -> Path:
    """A run file: a line that waits for a meter's log, and one that never had one."""
    turns = [
        {"idle": window(at), "prefill": window(at + 20, 100), "decode": window(at + 40, 50)}
        for at in (0.0, 100.0, 200.0)
    ]
    energy = Energy(
        method=logged.METHOD,
        domains=["meter"],
        update_s=1.0,
        window_s=10.0,
        units={"prefill": "token", "decode": "token"},
        turns=turns,
        reason="waits",
    )
    timed = {"decode_tps": make_metric(100, 1)}
    file = tmp_path / "run.jsonl"
    line: Measurement = make_latency(make_subject("W4A16-g64", 83), None, timed)
    record.append(file, line.model_copy(update={"energy": energy}))
    record.append(file, make_latency(make_subject("fp32", 540), None, timed))
    return file


def log(path: Path, first: float, last: float, watts: float = 20.0, step: float = 0.1) -> Path:
    count = int((last - first) / step) + 1
    lines = [f"{BEGAN + first + step * index!r},{watts}" for index in range(count)]
    path.write_text("\n".join(["seconds,watts", *lines]) + "\n", encoding="utf-8")
    return path


def test_joules_of_each_window_and_what_follows_from_them(waiting: Path, tmp_path: Path) -> None:
    (found,) = import_meter(log(tmp_path / "m.csv", -5, 260), waiting)
    assert found.energy is not None and found.energy.kind == "measured" and found.energy.reason == ""
    every = [one.joules for turn in found.energy.turns for one in turn.values()]
    assert every == pytest.approx([200.0] * 9)
    assert found.metrics["decode_j_per_token"].value == pytest.approx(4.0)
    assert found.metrics["prefill_j_per_token"].value == pytest.approx(2.0)
    assert found.metrics["idle_w"].value == pytest.approx(20.0)
    assert found.metrics["decode_tps"].value == 100
    lines = record.read([waiting])
    assert len(lines) == 3 and lines[-1] == found and len({line.id for line in lines}) == 3
    with pytest.raises(InputError, match="waits for a meter"):
        import_meter(tmp_path / "m.csv", waiting)


def test_sparse_lines_are_a_doubt(waiting: Path, tmp_path: Path) -> None:
    (found,) = import_meter(log(tmp_path / "m.csv", -5, 260, step=1.0), waiting)
    assert found.energy is not None and "1 s apart" in found.energy.disturbances[-1]
    validity = found.metrics["decode_j_per_token"].validity
    assert validity is not None and validity.status == "suspect"


@pytest.mark.parametrize(("first", "last"), [(20, 260), (-5, 240), (1000, 1100)])
def test_a_log_of_another_time_is_refused(waiting: Path, tmp_path: Path, first: float, last: float) -> None:
    with pytest.raises(InputError, match="has no joules for") as caught:
        import_meter(log(tmp_path / "m.csv", first, last), waiting)
    assert f"{BEGAN:.0f} to {BEGAN + 250:.0f} s" in caught.value.why
    assert len(record.read([waiting])) == 2


def test_the_verb_says_what_it_lacks(
    waiting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = log(tmp_path / "m.csv", -5, 260)
    assert run(["devices", "import", str(file)]) == 2
    assert "--record" in capsys.readouterr().err
    assert run(["devices", "import", str(file), "--record", str(waiting), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["added"]) == 1
    (tmp_path / "none.csv").write_text("time,power\n1,2\n")
    with pytest.raises(EdgepressError):
        import_meter(tmp_path / "none.csv", waiting)


def test_later_is_a_meter_that_counts_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logged.VARIABLE, logged.LATER)
    meter = logged.find()
    assert isinstance(meter, Meter) and meter.pending is not None and "imported" in str(meter)
    assert meter.between(meter.read(), meter.read()).joules == 0
