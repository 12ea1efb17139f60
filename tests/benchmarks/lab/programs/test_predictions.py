"""The lab's tables of predictions: errors, verdicts, and the share that data sheets are read with."""

from statistics import median

import pytest
from edgepress.benchmarks.lab.programs import sheet_error
from edgepress.benchmarks.lab.programs.predictions import BAND as DECODE_BAND
from edgepress.benchmarks.lab.programs.predictions import by_threads, errors, row, verdicts
from edgepress.devices.predict.data_sheet import SHARES

REAL = {"decode_tps": 100.0, "prefill_tps": 1000.0, "ttft_ms": 50.0, "rss_peak_bytes": 2e8, "disk_bytes": 1e8}


def test_errors_are_parts_of_what_was_measured() -> None:
    expected = {**REAL, "decode_tps": 110.0, "ttft_ms": 40.0}
    found = errors(expected, REAL)
    assert found["decode"] == pytest.approx(0.1) and found["first"] == pytest.approx(-0.2)
    assert found["prefill"] == found["disk"] == 0.0
    assert len(row("a", expected, REAL)) == 13


def test_an_encoder_has_no_decode() -> None:
    real = {"sentences_per_second": 10.0, "latency_ms": 5.0, "rss_peak_bytes": 1e8, "disk_bytes": 1e7}
    assert set(errors(real, real)) == {"prefill", "first", "memory", "disk"}
    cells = row("a", real, real)
    assert len(cells) == 13 and cells[1:4] == ["", "", ""]
    assert len(row("a", "the table has none", real)) == 13


def test_bars_are_of_the_median_and_of_nine_in_ten() -> None:
    well = [{"decode": 0.05}] * 9 + [{"decode": 0.9}]
    assert verdicts(well)[0].endswith("met")
    assert verdicts([*well, {"decode": 0.9}])[0].endswith("missed")
    assert verdicts([{"decode": 0.08}] * 10)[0].endswith("missed")


def test_decoding_is_judged_by_threads_and_by_its_band() -> None:
    expected = {
        f"{name}, {threads} threads": {"decode_tps": tps * threads, DECODE_BAND: 0.2}
        for threads in (1, 2)
        for name, tps in (("a", 110.0), ("b", 130.0), ("c", 95.0))
    }
    real = {name: {"decode_tps": 100.0 * int(name[3])} for name in expected}
    one, two = by_threads(expected, real)
    assert one.startswith(
        "decode, 1 threads: median error 10.0 %, of which 2 of 3 predicted too fast; 2 within"
    )
    assert two.startswith("decode, 2 threads") and one.endswith("± 20 %")


def test_sheets_are_read_with_the_shares_of_the_measured_machines() -> None:
    for size, by_machine in sheet_error.by_size().items():
        share, band = SHARES[size]
        assert len(by_machine) >= 2
        assert round(median(median(values) for values in by_machine.values()), 2) == share
        errors = [error for values in sheet_error.left_out(by_machine).values() for error in values]
        assert round(sheet_error.nine_in_ten(errors), 2) == band


def test_a_machine_is_predicted_with_the_others() -> None:
    found = sheet_error.left_out({"a": [0.5, 0.5], "b": [1.0]})
    assert found == {"a": [-0.5, -0.5], "b": [1.0]}
    assert sheet_error.left_out({"a": [0.5]}) == {}
