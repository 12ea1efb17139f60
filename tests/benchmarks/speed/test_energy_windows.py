"""Energy of pico bundles from a made-up counter: recorded, worked out, shown; and said when it is missing.

Each reading moves the counter on by two joules, so that every window has two, however long it lasted.
"""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from edgepress.benchmarks.page.account_table import energy_remark, energy_tables, parse_grid
from edgepress.benchmarks.page.compare import as_text, compare_runs, document
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.page.report import render_report
from edgepress.benchmarks.page.sections import not_measured
from edgepress.benchmarks.records import record
from edgepress.benchmarks.records.energy_metrics import energy_metrics, import_meter
from edgepress.benchmarks.records.energy_record import Energy, EnergyWindow
from edgepress.benchmarks.records.record import Measurement, Metric, Subject, Validity
from edgepress.benchmarks.speed import profile
from edgepress.benchmarks.speed.profile import profile_bundle
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.cli.entry import run
from edgepress.devices.bandwidth import Bandwidth
from edgepress.devices.energy import Meter, MeterLost
from edgepress.devices.meters import logged
from edgepress.export.api import export_bundle

STEP = 2_000_000
FAST = Protocol(blocks=1, block_ms=1, warmup_seconds=0, energy_seconds=0.01)
SHORT: dict[str, Any] = {"prompt_tokens": 12, "new_tokens": 4, "threads": 1}
ARGUMENTS = "--quick --blocks 1 --prompt-tokens 8 --new-tokens 3 --threads 1 -q".split()


@pytest.fixture(scope="module")
def decoder(pico_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(pico_llama, output=tmp_path_factory.mktemp("energy") / "decoder", validate=False)


@pytest.fixture(autouse=True)
def fast_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that no rate exceeds, and that takes no time to measure."""
    found = Bandwidth(1e15, 1 << 20, 1, (1e15,))
    monkeypatch.setattr(profile, "measure_both", lambda *_, **__: (found, found))


@pytest.fixture
def counter(powercap: Any) -> Any:
    """Two sockets and the board around them."""
    for path, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"),
    ):
        powercap.zone(path, name, microjoules=262_119_500_000, wraps_at=262_143_328_850)
    powercap.step = STEP // 2
    return powercap


def counted(line: Measurement) -> Energy:
    assert line.energy is not None
    return line.energy


@pytest.mark.chain
def test_every_phase_of_both_arms_is_counted(decoder: Path, counter: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    line = profile_bundle(decoder, baseline=decoder, protocol=FAST, record=file, **SHORT)
    baseline, recorded = record.read([file])
    assert recorded.energy == line.energy
    for energy in (counted(baseline), counted(line)):
        assert (energy.method, energy.kind) == ("rapl_pkg", "measured")
        assert (energy.domains, energy.beside) == (["package-0", "package-1"], ["psys"])
        assert energy.window_s == pytest.approx(0.05)  # fifty steps of the counter
        assert [set(turn) for turn in energy.turns] == [{"idle", "prefill", "decode"}] * 3
        windows = [window for turn in energy.turns for window in turn.values()]
        assert all(window.joules == pytest.approx(2) for window in windows)
        assert all(window.beside == {"psys": pytest.approx(1)} for window in windows)
        assert all(turn["prefill"].units == 12 * turn["prefill"].runs for turn in energy.turns)
        assert all(turn["decode"].units == 3 * turn["decode"].runs for turn in energy.turns)
    assert sum(
        window.wraps for one in (baseline, line) for turn in counted(one).turns for window in turn.values()
    )


@pytest.mark.chain
def test_metrics_follow_from_the_windows(decoder: Path, counter: Any) -> None:
    line = profile_bundle(decoder, protocol=FAST, **SHORT)
    turns = counted(line).turns
    metric = line.metrics["decode_j_per_token"]
    assert metric.value == pytest.approx(median(2 / turn["decode"].units for turn in turns))
    assert (metric.unit, metric.n, metric.better) == ("J/token", 3, "lower")
    assert line.metrics["idle_w"].value == pytest.approx(median(2 / turn["idle"].seconds for turn in turns))
    above = [
        (2 - 2 / turn["idle"].seconds * turn["prefill"].seconds) / turn["prefill"].units for turn in turns
    ]
    assert line.samples["prefill_j_per_token_net"] == pytest.approx(above)


@pytest.mark.chain
def test_a_log_that_comes_afterwards_is_imported(
    decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logged.VARIABLE, logged.LATER)
    monkeypatch.setattr(logged, "_LATER_STEP_S", 0.001)
    file, log, begun = tmp_path / "run.jsonl", tmp_path / "meter.csv", time.time()
    line = profile_bundle(decoder, protocol=FAST, record=file, **SHORT)
    energy = counted(line)
    assert energy.kind is None and "imported" in energy.reason and "idle_w" not in line.metrics
    moments = [window.began for turn in energy.turns for window in turn.values()]
    assert len(moments) == 9 and all(at is not None and at > begun for at in moments)
    times = np.linspace(begun - 1, time.time() + 1, 50_000)
    log.write_text("\n".join(["seconds,watts", *(f"{at:.6f},30" for at in times)]) + "\n")
    (found,) = import_meter(log, file)
    assert found.metrics["idle_w"].value == pytest.approx(30, rel=1e-3)
    assert found.metrics["decode_j_per_token"].value
    assert len(record.read([file])) == 2


@pytest.mark.chain
def test_an_encoder_is_counted_by_sentences(pico_bert: Path, tmp_path: Path, counter: Any) -> None:
    checkpoint = Path(shutil.copytree(pico_bert, tmp_path / "checkpoint"))
    steps = (("Transformer", ""), ("Pooling", "1_Pooling"))
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in steps]
    (checkpoint / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    bundle = export_bundle(checkpoint, output=tmp_path / "bundle", validate=False)
    line = profile_bundle(bundle, prompt_tokens=16, batch=3, threads=1, protocol=FAST)
    window = counted(line).turns[0]["batch"]
    assert window.units == 3 * window.runs
    assert line.metrics["batch_j_per_sentence"].unit == "J/sentence"
    assert "mJ/sent" in render_report([line])


@pytest.mark.chain
@pytest.mark.usefixtures("one_short_block")
def test_from_profile_to_report(
    decoder: Path, counter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.jsonl"
    assert run(["profile", str(decoder), *ARGUMENTS, "--record", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "decode_j_per_token" in shown and "J/token" in shown and "idle_w" in shown
    assert "energy: package-0, package-1 (rapl_pkg), 3 windows of at least 0.05 s" in shown
    assert run(["compare", str(file)]) == 0
    assert "mJ/token" in capsys.readouterr().out
    page = render_report(record.read([file]))
    assert "<h3>Energy</h3>" in page and "mJ/token" in page and "Joules of package-0, package-1" in page
    assert "Not measured: energy" not in page and "energy;" not in page


@pytest.mark.chain
@pytest.mark.usefixtures("one_short_block")
def test_a_locked_counter_is_told_everywhere_with_the_way_out(
    decoder: Path, counter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counter.denied = True
    file = tmp_path / "run.jsonl"
    assert run(["profile", str(decoder), *ARGUMENTS, "--record", str(file)]) == 0
    assert "energy: not measured: the CPU's energy counter is for root only" in capsys.readouterr().out
    [line] = record.read([file])
    assert (counted(line).method, counted(line).kind) == ("none", None)
    assert "decode_j_per_token" not in line.metrics
    groups = compare_runs([file])
    for text in (as_text(groups, width=200), render_report([line]), str(document(groups))):
        assert "since CVE-2020-8694" in text and "sudo chmod a+r" in text
    assert run(["doctor"]) in (0, 4)
    assert "root only" in " ".join(capsys.readouterr().out.split())


@pytest.mark.chain
@pytest.mark.usefixtures("one_short_block")
def test_energy_that_was_not_asked_for(
    decoder: Path, counter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--record", str(tmp_path / "run.jsonl")]
    assert run(["profile", str(decoder), *ARGUMENTS, "--no-energy", *file]) == 0
    assert "energy: not measured: it was not requested" in capsys.readouterr().out


@pytest.mark.chain
def test_a_counter_lost_on_the_way_costs_only_the_energy(
    decoder: Path, counter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, readings = Meter.read, []

    def failing(self: Meter) -> Any:
        readings.append(self)
        if len(readings) > 8:
            raise MeterLost("the CPU's energy counter cannot be read: No such device")
        return read(self)

    monkeypatch.setattr(Meter, "read", failing)
    line = profile_bundle(decoder, protocol=FAST, **SHORT)
    assert counted(line).reason == "the CPU's energy counter cannot be read: No such device"
    assert line.metrics["decode_tps"].value is not None


IDLE = EnergyWindow(seconds=5, joules=50)


def turn(joules: float = 150, idle: EnergyWindow = IDLE) -> dict[str, EnergyWindow]:
    """Ten watts at rest; in five seconds of work ``joules`` for a hundred tokens."""
    return {"idle": idle, "decode": EnergyWindow(seconds=5, joules=joules, runs=10, units=100)}


def energy(*turns: dict[str, EnergyWindow], disturbances: tuple[str, ...] = ()) -> Energy:
    return Energy(
        method="rapl_pkg",
        kind="measured",
        domains=["package-0"],
        update_s=0.001,
        window_s=5,
        units={"decode": "token"},
        turns=list(turns),
        disturbances=list(disturbances),
    )


def metrics(counted: Energy) -> dict[str, Metric]:
    return energy_metrics(counted, seed=0)[0]


def validity(metric: Metric) -> Validity:
    assert metric.validity is not None
    return metric.validity


def test_in_all_and_above_idle() -> None:
    found = metrics(energy(turn(149), turn(150), turn(151)))
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(
        {"decode_j_per_token": 1.5, "decode_j_per_token_net": 1.0, "idle_w": 10}
    )
    assert {validity(metric).status for metric in found.values()} == {"valid"}


def test_nothing_was_counted() -> None:
    assert energy_metrics(Energy(method="none", reason="no counter"), seed=0) == ({}, {})


def test_a_counter_that_stands_still_is_broken() -> None:
    found = metrics(energy(turn(), turn(0), turn()))
    assert validity(found["decode_j_per_token"]).status == "invalid"
    assert validity(found["decode_j_per_token"]).reasons[0].endswith("stood still in 1 windows")


def test_work_that_takes_less_than_rest_cannot_be() -> None:
    found = metrics(energy(turn(40), turn(41), turn(40)))
    assert validity(found["decode_j_per_token"]).status == "valid"
    assert "no more than idleness" in validity(found["decode_j_per_token_net"]).reasons[0]


def test_doubts() -> None:
    few = validity(metrics(energy(turn()))["decode_j_per_token"])
    assert (few.status, few.reasons) == ("suspect", ["only 1 window of energy: at least 3 are needed"])
    wide = validity(metrics(energy(turn(100), turn(150), turn(160)))["decode_j_per_token"])
    assert wide.reasons == ["noisy: windows of energy differ by 40 %"]
    disturbed = metrics(energy(turn(), turn(), turn(), disturbances=("noisy: others worked",)))
    assert validity(disturbed["idle_w"]).reasons == ["noisy: others worked"]


def test_windows_in_which_the_machine_slept_are_left_out() -> None:
    slept = {"decode": turn()["decode"]}
    found = metrics(energy(turn(), slept, turn()))
    assert (found["decode_j_per_token"].n, found["decode_j_per_token_net"].n) == (3, 2)
    nothing = metrics(energy({}, {}))["idle_w"]
    assert (nothing.value, validity(nothing).status) == (None, "invalid")


@pytest.fixture
def lines(
    make_subject: Callable[..., Subject], make_latency: Callable[..., Measurement]
) -> list[Measurement]:
    """An original whose counter was quiet and a version whose counter had company."""
    subjects = make_subject("fp32", 540), make_subject("W4A16-g64", 83)
    noisy = energy(turn(45), turn(45), turn(45), disturbances=("noisy: others worked",))
    counted = energy(turn(149), turn(150), turn(151)), noisy
    return [
        make_latency(of, None, metrics(one), energy=one) for of, one in zip(subjects, counted, strict=True)
    ]


def test_a_doubtful_counter_does_not_taint_the_clock(lines: list[Measurement]) -> None:
    text = as_text(join(lines))
    assert "mJ/token" in text and "1\u202f500" in text
    assert "≈ 450 [1]" in text
    assert "[1] W4A16-g64 (ONNX), energy: suspect: noisy: others worked" in text
    assert "latency and memory: suspect" not in text


def test_the_table_of_the_report(lines: list[Measurement]) -> None:
    [table] = energy_tables(join(lines)[0])
    assert table.rows == (
        ("fp32, decode", "1.50", "1.00", "J/token", "10.0", "3"),
        ("W4A16-g64, decode", "≈ 0.450", "✗ -0.0500", "J/token", "≈ 10.0", "3"),
    )
    assert "package-0 (rapl_pkg)" in table.note and "never added" not in table.note
    assert energy_remark(lines[1])[1:] == [
        "decode_j_per_token, idle_w: suspect: noisy: others worked",
        "decode_j_per_token_net: invalid: impossible: the work took no more than idleness; "
        "noisy: others worked",
    ]


def test_grams_stand_beside_the_joules_that_they_are_made_of(lines: list[Measurement]) -> None:
    [table] = energy_tables(join(lines)[0], parse_grid("360 g/kWh, an agency, 2023"))
    assert table.columns[-1] == "g CO₂ a 1,000"
    assert [row[-1] for row in table.rows] == ["0.150", "≈ 0.0450"]
    assert "360 g/kWh (an agency, 2023), calculated" in table.note


def test_gaps_name_who_has_no_energy_and_why(lines: list[Measurement]) -> None:
    assert "energy" not in not_measured(join(lines)[0])
    locked = Energy(method="none", reason="locked", fix="unlock it")
    bare = lines[1].model_copy(update={"energy": locked, "metrics": {}})
    text = not_measured(join([lines[0], bare])[0])
    assert "energy of W4A16-g64 (locked → unlock it)" in text
    assert energy_remark(bare) == ["energy: not measured: locked → unlock it"]
    neither = lines[0].model_copy(update={"energy": locked, "metrics": {}})
    assert "energy (locked → unlock it)" in not_measured(join([neither, bare])[0])
