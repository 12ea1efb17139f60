"""``edgepress devices``: tables for people, one document for programs."""

import json

import pytest
from edgepress.cli.entry import run
from edgepress.cli.kernel_tables import summary
from edgepress.devices.target import target_names

from ..devices.kernel_table.tables import small_table

pytestmark = pytest.mark.chain


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in target_names())
    assert run(["devices", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["targets"]
    assert [entry["name"] for entry in listed] == target_names()


def test_show_has_sources_as_footnotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "show", "l40s"]) == 0
    shown = capsys.readouterr().out
    assert "[1] stas00/ml-engineering" in shown
    assert "low" in shown and "864 GB/s" in shown and "decoding reads at" not in shown
    assert run(["devices", "show", "raspberry-pi-5"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "decoding reads at 58 %" in shown and "decoding reads at 68 %" in shown
    assert "median of the measured processors" in shown


def test_show_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "show", "h200", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bandwidth"]["value"] == 4800
    assert document["decode_ceiling_tps"]["1 B at 4 bit"] == 9600


def test_show_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "show", "l41s"]) == 2
    assert "did you mean 'l40s'" in capsys.readouterr().err


def test_probe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "probe"]) == 0
    assert "fingerprint" in capsys.readouterr().out
    assert run(["devices", "probe", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bandwidth"] is None
    assert document["machine"]["limits"]["threads"] >= 1
    assert document["state"]["logical_cpus"] >= 1
    assert document["energy"]["cpu"]["method"] in ("rapl_pkg", "none")


def test_a_table_without_a_time_says_why() -> None:
    table = small_table()
    assert "the time was over" not in summary("here", table)
    empty = table.model_copy(update={"families": [], "complete": False})
    assert "the time was over before an operator was timed" in summary("here", empty)
    part = table.model_copy(update={"complete": False})
    assert "the same command goes on" in summary("here", part)
