"""The calibration text of a decoder is cut once: what is kept is what was cut, and nothing else is taken for
it.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgepress.compress.model.weights import WeightSource
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.errors import CalibrationError
from edgepress.fit.asked.given import kept_calibration
from edgepress.runtime.text.tokenizer import Tokenizer

SETTINGS = {"samples": 6, "length": 16, "seed": 1, "batch_size": 4}


class Cut:
    """Cuts, and counts how often."""

    def __init__(self, model: Path, text: Path, **settings: Any) -> None:
        self.text, self.settings, self.count = text, {**SETTINGS, **settings}, 0
        self.source, self.tokenizer = WeightSource.open(model), Tokenizer.open(model)

    def _cut(self) -> Calibration:
        self.count += 1
        kind = self.source.anatomy.kind
        return calibration_from(str(self.text), self.tokenizer, kind=kind, **self.settings)

    def __call__(self) -> Calibration:
        return kept_calibration(self.source, str(self.text), self.settings, self._cut)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPRESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fit"


def test_what_was_cut_is_there_the_next_time(pico_llama: Path, pico_text: Path) -> None:
    first, second = Cut(pico_llama, pico_text), Cut(pico_llama, pico_text)
    cut, kept = first(), second()
    assert (first.count, second.count) == (1, 0)
    assert replace(cut, batches=()) == replace(kept, batches=())
    assert [len(batch.input_ids) for batch in kept.batches] == [4, 2]
    for ours, theirs in zip(kept.batches, cut.batches, strict=True):
        assert ours.input_ids.equal(theirs.input_ids) and ours.attention_mask.equal(theirs.attention_mask)


@pytest.mark.parametrize("settings", [{"samples": 7}, {"length": 17}, {"seed": 2}, {"batch_size": 3}])
def test_other_settings_are_cut(pico_llama: Path, pico_text: Path, settings: dict[str, int]) -> None:
    Cut(pico_llama, pico_text)()
    other = Cut(pico_llama, pico_text, **settings)
    other()
    assert other.count == 1


def test_another_text_is_cut_and_an_equal_one_is_not(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    Cut(pico_llama, pico_text)()
    same, longer = tmp_path / "same.txt", tmp_path / "longer.txt"
    same.write_bytes(pico_text.read_bytes())
    longer.write_bytes(pico_text.read_bytes() + b"\n\nand more of it")
    cuts = [Cut(pico_llama, path) for path in (same, longer)]
    assert cuts[0]().source == str(same)
    cuts[1]()
    assert [cut.count for cut in cuts] == [0, 1]


def test_what_is_damaged_is_cut(pico_llama: Path, pico_text: Path, folder: Path) -> None:
    whole = Cut(pico_llama, pico_text)()
    (file,) = folder.iterdir()
    content = file.read_bytes()
    for damaged in (content[:-9], content.replace(b'"seed": 1', b'"seed": 2'), b"", b"[]"):
        file.write_bytes(damaged)
        again = Cut(pico_llama, pico_text)
        assert again().sha256 == whole.sha256 and again.count == 1


def test_a_cache_that_cannot_be_written_is_left_alone(
    pico_llama: Path, pico_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert Cut(pico_llama, pico_text)().samples == 6


def test_what_is_refused_is_not_kept(pico_llama: Path, pico_text: Path, folder: Path) -> None:
    with pytest.raises(CalibrationError, match="90000 × 16 need"):
        Cut(pico_llama, pico_text, samples=90_000)()
    assert not folder.exists()


def test_texts_of_an_encoder_are_drawn_again(pico_bert: Path, pico_text: Path, folder: Path) -> None:
    cut = Cut(pico_bert, pico_text)
    cut(), cut()
    assert cut.count == 2 and not folder.exists()
