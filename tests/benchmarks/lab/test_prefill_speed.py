"""The check of prefill on a pico model: every variant computes the same, and every cell is filled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgepress.benchmarks.lab.programs import prefill_arms as arms
from edgepress.benchmarks.lab.programs import prefill_speed as check
from edgepress.benchmarks.lab.programs.prefill_variants import VARIANTS
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.export.proof.distances import divergence, log_softmax
from edgepress.export.proof.drive import GraphDriver
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.engine import decoder as decoder_module
from edgepress.runtime.engine import prefill as prefill_module
from edgepress.runtime.prepack import prepack, prepacked
from edgepress.runtime.session.session import open_session

IDS = np.random.default_rng(4).integers(0, 300, (1, 100))


@pytest.fixture
def bundle(pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle of 4-bit weights, prepacked."""
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepacked, "SMALLEST", 0)
    compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "w4")
    bundle = Bundle.open(export_bundle(tmp_path / "w4", output=tmp_path / "b", validate=False))
    assert prepack.prepack(bundle) is not None
    return bundle


def test_every_graph_says_nearly_the_same(bundle: Bundle, tmp_path: Path) -> None:
    driver = GraphDriver(open_session(bundle.graph, threads=1))
    own = log_softmax(driver.logits(IDS, depth=60)[0])
    for graph in (*arms.STORED, *VARIANTS):
        session = arms.filler(bundle, tmp_path, graph, 1)
        found = log_softmax(driver.logits(IDS, depth=60, filler=session)[0])
        assert 0 < divergence(own, found).mean() < 0.01, graph
    assert arms.filler(bundle, tmp_path, "own", 1) is None


def test_speed_of_every_variant(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "PROMPTS", (40, 70))
    monkeypatch.setattr(check, "THREADS", (1,))
    monkeypatch.setattr(arms, "_PAUSE", 0.0)
    for module in (decoder_module, prefill_module):  # the check sets them, the test puts them back
        monkeypatch.setattr(module, "PREFILL_CHUNK", module.PREFILL_CHUNK)
    cells = check.speed(bundle, tmp_path, 6)
    assert [len(row) for row in cells.values()] == [2] * len(check.ROWS)
    assert "×" in cells[check.SHIPPED][0] and "×" not in cells[check.OWN][0]
    assert any("adds" in note for note in check._notes(bundle, 6))
    assert arms.opening_ms(bundle, tmp_path, "int8", 1) > 0
