"""Predictions of plans, as ``edgepress predict`` prints them: of checkpoints of every kind, by a data sheet
and by a table; what a scheme makes smaller takes less, and what is not known is said.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from edgepress.cli.entry import run
from edgepress.devices.kernel_table import table as kept
from edgepress.devices.kernel_table.table import write_table
from edgepress.devices.predict import predict as module
from edgepress.runtime.kernels.library import library

from ..kernel_table.tables import small_table

pytestmark = pytest.mark.skipif(library() is None, reason="plans are of edgepress's own operators")
WORK = ("--prompt-tokens", "8", "--max-new-tokens", "4", "--batch-size", "2")
SPECTRA = 4 * 201 * (2 * 400 + 16)  # bytes of the waves and filters that spectra are made of, as they are
ANSWERS = {"pico_llama", "pico_t5", "pico_whisper"}


@pytest.fixture(params=["pico_llama", "pico_bert", "pico_t5", "pico_whisper"])
def model(request: pytest.FixtureRequest) -> tuple[str, Path]:
    return request.param, request.getfixturevalue(request.param)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has a table."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    table = small_table()
    monkeypatch.setattr(module, "this_key", lambda: table.key)
    write_table(kept.tables_of("here") / "table.json", table)


def predicted(capsys: pytest.CaptureFixture[str], model: Path, *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(["predict", str(model), *WORK, *words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def assert_bounded(quantities: dict[str, Any]) -> None:
    """A value lies within its band, or a reason stands in its place."""
    for one in quantities.values():
        if one["value"] is None:
            assert one["reason"]
        else:
            assert 0 < one["low"] <= one["value"] <= one["high"]


def test_a_sheet_says_what_it_can(model: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, path = model
    board, server = predicted(capsys, path, "--on", "raspberry-pi-5,h100-sxm")
    (small,) = predicted(capsys, path, "--on", "raspberry-pi-5", "--scheme", "W4A16")
    assert (board["basis"], server["basis"]) == ("data sheet", "data sheet")
    for one in (board, server, small):
        assert_bounded(one["quantities"])
    dense, coded = board["quantities"], small["quantities"]
    spectra = SPECTRA if name == "pico_whisper" else 0
    assert coded["disk_bytes"]["value"] - spectra < 0.6 * (dense["disk_bytes"]["value"] - spectra)
    if name in ANSWERS:
        assert coded["tpot_ms"]["value"] < dense["tpot_ms"]["value"]
        rate, wait = dense["decode_tps"]["value"], dense["tpot_ms"]["value"]
        assert rate * wait == pytest.approx(1000)
        assert dense["decode_j_per_token"]["value"] > 0
        # No GPU was measured, so that of a GPU there is a bound alone.
        assert server["quantities"]["decode_tps"]["value"] is None
        assert "no rate above" in " ".join(server["notes"])
    else:
        assert dense["latency_ms"]["reason"] == "its sheet does not say what kernels reach"


@pytest.mark.usefixtures("measured")
def test_a_table_says_all(model: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    name, path = model
    for words in ((), ("--scheme", "W4A16"), ("--scheme", "W8A8")):
        (found,) = predicted(capsys, path, "--on", "here", "--threads", "1", *words)
        assert found["basis"].startswith("measured table")
        assert_bounded(found["quantities"])
        timed = ("ttft_ms", "tpot_ms") if name in ANSWERS else ("latency_ms", "sentences_per_second")
        assert all(found["quantities"][one]["value"] for one in timed)
        assert "--threads 1" in found["check"]


def test_the_page_in_a_terminal(pico_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(pico_llama), *WORK, "--on", "raspberry-pi-5,h100-sxm"]) == 0
    said = capsys.readouterr().out
    assert "Raspberry Pi 5" in said and "data sheet" in said
    assert run(["predict", str(pico_llama), "--on", "raspberry-pi-6"]) == 2
    assert "raspberry-pi-5" in capsys.readouterr().err
