"""Figures of energy from hand-made windows, what makes them doubtful, and how doubt is shown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from edgepress.benchmarks.page.compare import as_text
from edgepress.benchmarks.page.conclusion import sentences
from edgepress.benchmarks.page.energy_table import energy_remark, energy_tables
from edgepress.benchmarks.page.gaps import not_measured
from edgepress.benchmarks.page.join import join
from edgepress.benchmarks.records.energy_record import Energy, EnergyWindow
from edgepress.benchmarks.records.record import Measurement, Metric, Subject, Validity
from edgepress.benchmarks.speed.energy_metrics import energy_metrics

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
    assert "mJ/token" in text and "1\u2009500" in text
    assert "? 450 [1]" in text
    assert "[1] W4A16-g64 (ONNX), energy: suspect: noisy: others worked" in text
    assert "latency and memory: suspect" not in text


def test_the_verdict_says_what_a_token_takes(lines: list[Measurement]) -> None:
    assert "450 mJ/token (the original: 1\u2009500)" in sentences(join(lines)[0])[0]


def test_the_table_of_the_report(lines: list[Measurement]) -> None:
    [table] = energy_tables(join(lines)[0])
    assert table.rows == (
        ("fp32, decode", "1.50", "1.00", "J/token", "10.0", "3"),
        ("W4A16-g64, decode", "? 0.450", "✗ -0.0500", "J/token", "? 10.0", "3"),
    )
    assert "package-0 (rapl_pkg)" in table.note and "never added" not in table.note
    assert energy_remark(lines[1])[1:] == [
        "decode_j_per_token, idle_w: suspect: noisy: others worked",
        "decode_j_per_token_net: invalid: impossible: the work took no more than idleness; "
        "noisy: others worked",
    ]


def test_gaps_name_who_has_no_energy_and_why(lines: list[Measurement]) -> None:
    assert "energy" not in not_measured(join(lines)[0])
    locked = Energy(method="none", reason="locked", fix="unlock it")
    bare = lines[1].model_copy(update={"energy": locked, "metrics": {}})
    text = not_measured(join([lines[0], bare])[0])
    assert "energy of W4A16-g64 (locked → unlock it)" in text
    assert energy_remark(bare) == ["energy: not measured: locked → unlock it"]
    neither = lines[0].model_copy(update={"energy": locked, "metrics": {}})
    assert "energy (locked → unlock it)" in not_measured(join([neither, bare])[0])
