"""Bundles timed in turns: what is counted, and that every bundle gets as many rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.programs.interleaved import (
    after_a_first_run,
    kept_rates,
    ratio,
    timed_here,
    timed_in_turns,
)
from edgepress.compress.api import compress_model
from edgepress.export.api import export_bundle
from edgepress.runtime.bundle.bundle import Bundle
from edgepress.runtime.prepack import prepacked
from edgepress.storage import write_json


@pytest.fixture
def pooled_bert(make_encoder: Callable[..., Path], tmp_path: Path) -> Path:
    path = make_encoder(tmp_path / "m")
    (path / "1_Pooling").mkdir()
    write_json(path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": name, "type": f"sentence_transformers.models.{kind}"} for name, kind in kinds.items()]
    write_json(path / "modules.json", modules)
    return path


@pytest.mark.parametrize(
    ("model", "kinds"), [("pico_llama", {"prefill", "decode"}), ("pooled_bert", {"sentences"})]
)
def test_every_bundle_does_the_same_rounds(
    model: str,
    kinds: set[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edgepress.benchmarks.lab.programs.interleaved.PROMPT", 8)
    monkeypatch.setattr("edgepress.benchmarks.lab.programs.interleaved.NEW_TOKENS", 2)
    bundle = export_bundle(request.getfixturevalue(model), output=tmp_path / "b", validate=False)
    rates = timed_here({"one": bundle, "two": bundle}, rounds=6)
    assert set(rates) == {"one", "two"}
    assert {kind: len(found) for kind, found in rates["one"].items()} == dict.fromkeys(kinds, 6)
    assert all(rate > 0 for found in rates.values() for each in found.values() for rate in each)


def test_every_process_does_the_same_rounds(pooled_bert: Path, tmp_path: Path) -> None:
    bundle = export_bundle(pooled_bert, output=tmp_path / "b", validate=False)
    rates = timed_in_turns({"one": bundle, "two": bundle}, rounds=2, processes=3)
    assert list(rates) == ["one", "two"]
    assert [len(rounds) for rounds in rates["two"]["sentences"]] == [2, 2, 2]


def test_what_was_timed_is_kept_for_whoever_asks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def timed(
        bundles: dict[str, Path], rounds: int, processes: int
    ) -> dict[str, dict[str, list[list[float]]]]:
        asked.append((rounds, processes))
        return {name: {"decode": [[float(rounds)] * rounds] * processes} for name in bundles}

    monkeypatch.setattr("edgepress.benchmarks.lab.programs.interleaved.timed_in_turns", timed)
    file, bundles = tmp_path / "speed.json", {"one": tmp_path, "two": tmp_path}
    first = kept_rates(file, bundles, 2, 3)
    assert kept_rates(file, bundles, 2, 3) == first and asked == [(2, 3)]
    assert kept_rates(file, bundles, 4, 3) != first and asked == [(2, 3), (4, 3)]
    write_json(file, first)  # as it was written once, with nothing about how it came about
    assert kept_rates(file, bundles, 2, 3) == first and len(asked) == 3


def test_a_ratio_is_that_of_pairs_and_a_process_counts_once() -> None:
    found = ratio([[2.0, 4.0, 60.0]] * 6, [[1.0, 2.0, 3.0]] * 6)
    assert found == (2.0, "2.00 [2.00, 2.00]")
    one_process_is_faster = ratio([[2.0] * 9, *[[1.0]] * 6], [[1.0] * 9, *[[1.0]] * 6])
    assert one_process_is_faster is not None and one_process_is_faster[0] == 1.0
    assert ratio([[1.0]], [[1.0]]) is None


def test_no_bundle_is_timed_as_in_its_first_run(
    pico_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(prepacked, "SMALLEST", 0)
    made = compress_model(str(pico_llama), scheme="W4A16", group_size=32, output=tmp_path / "m")
    bundle = Bundle.open(export_bundle(made, output=tmp_path / "b", validate=False))
    assert bundle.prefill is not None and prepacked.find(bundle) is None
    decoder = after_a_first_run(bundle)
    entry = prepacked.find(bundle)
    assert entry is not None and entry.prefill.is_file()
    assert decoder.prefill_graph is not None and decoder.prefill_graph.session() is not None
