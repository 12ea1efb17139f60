"""Joules of a token for the rows of a table: from a made-up counter, and without one."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs import decode_energy
from edgepress.benchmarks.lab.programs.decode_energy import decode_energies, described, joules
from edgepress.benchmarks.speed.protocol import Protocol
from edgepress.devices.energy import Counter, Meter, NoMeter
from edgepress.export.api import export_bundle

FAST = Protocol(blocks=1, block_ms=1, warmup_seconds=0, energy_windows=1, energy_seconds=0.01)


@pytest.fixture
def decoder(pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(decode_energy, "PROMPT", 8)
    monkeypatch.setattr(decode_energy, "NEW_TOKENS", 3)
    return export_bundle(pico_llama, output=tmp_path / "decoder", validate=False)


def test_each_bundle_has_the_joules_of_its_tokens(decoder: Path) -> None:
    readings = count(step=3_000_000)
    meter = Meter("rapl_pkg", (Counter("package-0", lambda: next(readings)),), (), 1e-4)
    found = decode_energies({"a": decoder, "b": decoder}, meter, FAST)
    for energy in found.values():
        (turn,) = energy.turns
        # The first new token is the prompt's.
        assert turn["decode"].units == 2 * turn["decode"].runs
        each = turn["decode"].joules / turn["decode"].units
        assert turn["decode"].joules == pytest.approx(3)
        text, doubt = joules(energy).split(" ", 1)
        assert float(text) == pytest.approx(each, rel=0.01) and doubt == "(suspect)"  # one window is few
    assert described(found).startswith("J: package-0 (rapl_pkg), 1 windows of at least 0.01 s")


def test_without_a_counter_the_reason_is_told(decoder: Path) -> None:
    found = decode_energies({"a": decoder}, NoMeter("no counter here", "look elsewhere"), FAST)
    assert joules(found["a"]) == "–" == joules(None)
    assert described(found) == "Energy: not measured: no counter here → look elsewhere."
