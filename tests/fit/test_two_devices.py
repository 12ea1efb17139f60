"""Budgets of two devices at once: this machine, and one behind a real sshd on the loopback."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgepress.benchmarks.records import record as records
from edgepress.cli.entry import run
from edgepress.devices.kernel_table import table
from edgepress.fit import search as search_module

from ..devices.kernel_table.tables import small_table
from ..loopback import Loopback, client, installed_wheels, require_sshd

# `profile --on here,pi` measures as trials do, and is no slow test: tests/benchmarks/speed/test_elsewhere.py.
pytestmark = [pytest.mark.chain, pytest.mark.slow]


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A device of that name, whose kernel table is that of this machine's tests."""
    require_sshd()
    (tmp_path / "device").mkdir()
    device = Loopback(tmp_path / "device")
    device.start()
    monkeypatch.setenv("PATH", f"{client(tmp_path / 'bin', [device])}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEPRESS_WHEELS", str(installed_wheels(tmp_path / "wheels")))
    assert run(["devices", "add", "pi", "--ssh", "loopback", "--no-measure"]) == 0
    table.keep_table("pi", small_table())
    yield
    device.stop()


@pytest.mark.usefixtures("table", "pi")
def test_one_artifact_holds_on_both(
    pico_llama: Path,
    pico_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(search_module, "METHODS", search_module.METHODS[:1])
    monkeypatch.setattr(search_module, "ROUNDS", 1)
    out = tmp_path / "o"
    given = ["--text", str(pico_text), "--samples", "16", "--length", "32", "--threads", "1", "--json"]
    budgets = ["--max-disk", "260kB", "--max-memory", "here=2GB,pi=1.5GB", "--min-decode", "here=1,pi=2"]
    capsys.readouterr()
    assert run(["fit", str(pico_llama), *given, "--on", "here,pi", *budgets, "-o", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["budgets"][1:] == [
        "memory ≤ 2000.0 MB on here",
        "memory ≤ 1500.0 MB on pi",
        "decode ≥ 1 tok/s on here",
        "decode ≥ 2 tok/s on pi",
    ]
    measured = found["measured"]
    assert measured["memory on pi"] <= 1.5e9 and measured["decode on pi"] >= 2 <= measured["decode on here"]
    devices = [line.device.get("name") for line in records.read([out / "runs.jsonl"])]
    assert "pi" in devices and devices.count("pi") == 1
