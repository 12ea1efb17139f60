"""Bundles timed interleaved: what is counted, and that every bundle gets as many rounds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from edgepress.benchmarks.lab.study import interleaved
from edgepress.benchmarks.lab.study.interleaved import TimedWork, ratio, recorded, timed
from edgepress.export.api import export_bundle
from edgepress.files.storage import write_json

pytestmark = pytest.mark.chain


@pytest.mark.parametrize(
    ("model", "kinds"),
    [("pico_llama", {"prefill 8", "decode 8", "prefill 12", "decode 12"}), ("pooled_bert", {"sentences"})],
)
def test_every_bundle_does_the_same_rounds(
    model: str, kinds: set[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle = export_bundle(request.getfixturevalue(model), output=tmp_path / "b", validate=False)
    work = TimedWork(prompts=(8, 12), new_tokens=2)
    rates = timed({"one": bundle, "two": bundle}, work, rounds=6, processes=0)
    assert set(rates) == {"one", "two"}
    assert {kind: [len(one) for one in found] for kind, found in rates["one"].items()} == {
        kind: [6] for kind in kinds
    }
    assert all(rate > 0 for found in rates.values() for (each,) in found.values() for rate in each)


def test_half_of_the_rounds_open_the_bundles_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def turns(path: Path, work: TimedWork) -> list[Callable[[], dict[str, float]]]:
        opened.append(path.name)
        return [lambda: {"sentences": 1.0}]

    monkeypatch.setattr(interleaved, "_turns", turns)
    bundles = {name: tmp_path / name for name in ("one", "two")}
    rates = timed(bundles, TimedWork(), rounds=5, processes=0)
    assert opened == ["one", "two", "two", "one"]
    assert [len(each) for each in rates["one"]["sentences"]] == [5]


def test_every_process_does_the_same_rounds(pooled_bert: Path, tmp_path: Path) -> None:
    bundle = export_bundle(pooled_bert, output=tmp_path / "b", validate=False)
    rates = timed({"one": bundle, "two": bundle}, TimedWork(), rounds=2, processes=2)
    assert list(rates) == ["one", "two"]
    assert [len(rounds) for rounds in rates["two"]["sentences"]] == [2, 2]


def test_what_was_timed_is_not_timed_again_for_the_same_question(pooled_bert: Path, tmp_path: Path) -> None:
    bundle, file, work = (
        export_bundle(pooled_bert, output=tmp_path / "b", validate=False),
        tmp_path / "f.json",
        TimedWork(),
    )
    first = recorded(file, {"one": bundle}, work, rounds=1, processes=0)
    assert recorded(file, {"one": bundle}, work, rounds=1, processes=0) == first
    assert recorded(file, {"one": bundle}, work, rounds=2, processes=0) != first
    write_json(file, first)  # as it might have been written, with nothing about how it came about
    assert recorded(file, {"one": bundle}, work, rounds=1, processes=0) != first


def test_a_ratio_is_that_of_pairs_and_a_process_counts_once() -> None:
    found = ratio([[2.0, 4.0, 60.0]] * 6, [[1.0, 2.0, 3.0]] * 6)
    assert found == (2.0, "2.00 [2.00, 2.00]")
    one_process_is_faster = ratio([[2.0] * 9, *[[1.0]] * 6], [[1.0] * 9, *[[1.0]] * 6])
    assert one_process_is_faster is not None and one_process_is_faster[0] == 1.0
    assert ratio([[1.0]], [[1.0]]) is None
