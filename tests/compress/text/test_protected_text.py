"""Protected groups: as much text of each as was asked, in rows that a decoder takes, and typed refusals."""

import json
from pathlib import Path

import pytest
from edgepress.compress.text.calibration import calibration_from
from edgepress.compress.text.probe_text import TEXTS
from edgepress.compress.text.protected_text import ProtectedText, read_protected
from edgepress.errors import CalibrationError
from edgepress.runtime.text.tokenizer import Tokenizer


@pytest.fixture
def grouped(tmp_path: Path, pico_text: Path) -> Path:
    parts = pico_text.read_text(encoding="utf-8").split("\n\n")
    rows = [{"text": part, "group": ("one", "two")[number % 2]} for number, part in enumerate(parts)]
    path = tmp_path / "grouped.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "of no group"}])), encoding="utf-8")
    return path


def test_a_file_is_read_by_group_and_prose_is_one(grouped: Path, pico_text: Path) -> None:
    found = read_protected(grouped)
    assert found.name == "grouped" and [group for group, _ in found.texts] == ["one", "two"]
    assert not any("of no group" in text for _, texts in found.texts for text in texts)
    (only,) = read_protected(pico_text).texts
    assert only[0] == "prose"


@pytest.mark.parametrize(("kind", "model"), [("decoder", "pico_llama"), ("encoder", "pico_bert")])
def test_each_group_has_as_much_of_half_the_text(
    grouped: Path, pico_text: Path, kind: str, model: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = Tokenizer.open(request.getfixturevalue(model))
    options = {"kind": kind, "samples": 16, "length": 32, "batch_size": 4}
    plain = calibration_from(str(pico_text), tokenizer, **options)  # type: ignore[arg-type]
    found = calibration_from(
        str(pico_text),
        tokenizer,
        protect=[read_protected(grouped)],
        **options,  # type: ignore[arg-type]
    )
    assert [group.name for group in found.protected] == ["grouped: one", "grouped: two"]
    each = plain.effective_tokens // 4
    for group in found.protected:
        assert each - 32 <= group.tokens <= each + 32
        assert group.tokens == sum(int(batch.attention_mask.sum()) for batch in group.batches)
        assert group.size > group.tokens
        assert kind == "encoder" or all(bool(batch.attention_mask.all()) for batch in group.batches)
    assert found.own().batches == found.batches[: len(plain.batches)]
    assert found.describe()["protected"] == {group.name: group.tokens for group in found.protected}
    assert found.sha256 != plain.sha256 and "protected" not in plain.describe()
    fewer = found.spread(4)
    assert fewer.samples == 4 and fewer.protected == found.protected
    assert len(fewer.batches) == 1 + len(found.protected)


def test_too_little_text_and_the_text_that_is_measured_are_refused(pico_text: Path, pico_llama: Path) -> None:
    tokenizer = Tokenizer.open(pico_llama)
    for text, message in (("a", "tokens of text, fewer than"), (TEXTS[0], "every step is measured on")):
        with pytest.raises(CalibrationError, match=message):
            calibration_from(
                str(pico_text),
                tokenizer,
                kind="decoder",
                samples=8,
                length=32,
                protect=[ProtectedText.of("mine", [("group", text)])],
            )
