"""Calibration batches: exact shapes, one seed one set of bytes, and refusals that say what would fit."""

import json
from pathlib import Path

import pytest
import torch
from edgepress.compress.text.calibration import Calibration, calibration_from
from edgepress.errors import CalibrationError, InputError, UnknownName
from edgepress.runtime.text.tokenizer import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from ...conftest import sentences


@pytest.fixture(scope="session")
def decoder(pico_llama: Path) -> Tokenizer:
    return Tokenizer.open(pico_llama)


@pytest.fixture(scope="session")
def encoder(pico_bert: Path) -> Tokenizer:
    return Tokenizer.open(pico_bert)


def rows_of(calibration: Calibration) -> list[list[int]]:
    return [
        ids[mask.bool()].tolist()
        for batch in calibration.batches
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]


def test_decoder_windows_are_full_distinct_and_from_the_text(decoder: Tokenizer, pico_text: Path) -> None:
    calibration = calibration_from(
        str(pico_text), decoder, kind="decoder", samples=10, length=32, batch_size=4
    )
    assert [tuple(batch.input_ids.shape) for batch in calibration.batches] == [(4, 32), (4, 32), (2, 32)]
    assert all(batch.attention_mask.all() for batch in calibration.batches)
    assert all(batch.input_ids.dtype == torch.int64 for batch in calibration.batches)
    assert (calibration.samples, calibration.effective_tokens) == (10, 320)
    rows = rows_of(calibration)
    assert len({tuple(row) for row in rows}) == 10
    text = pico_text.read_text(encoding="utf-8")
    assert all(decoder.decode(row) in text for row in rows)


def test_encoder_rows_are_whole_paragraphs_under_a_mask(encoder: Tokenizer, pico_text: Path) -> None:
    calibration = calibration_from(
        str(pico_text), encoder, kind="encoder", samples=9, length=500, batch_size=4
    )
    paragraphs = pico_text.read_text(encoding="utf-8").split("\n\n")
    expected = {tuple(encoder.encode(paragraph)) for paragraph in paragraphs}
    rows = rows_of(calibration)
    assert len(rows) == 9
    assert all(tuple(row) in expected for row in rows)
    assert calibration.effective_tokens == sum(map(len, rows))
    assert calibration.truncated == 0
    for batch in calibration.batches:
        assert (batch.input_ids[batch.attention_mask == 0] == encoder.pad_id).all()
        assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]


def test_encoder_truncates_and_counts(encoder: Tokenizer, pico_text: Path) -> None:
    calibration = calibration_from(str(pico_text), encoder, kind="encoder", samples=5, length=12)
    assert calibration.truncated == 5
    closing = encoder.encode("the")[-1]
    assert all(len(row) == 12 and row[-1] == closing for row in rows_of(calibration))


@pytest.mark.chain
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 12), length=st.integers(2, 40))
def test_same_seed_same_bytes(
    decoder: Tokenizer, pico_text: Path, seed: int, samples: int, length: int
) -> None:
    def make(seed: int) -> Calibration:
        return calibration_from(
            str(pico_text), decoder, kind="decoder", samples=samples, length=length, seed=seed
        )

    first, again, other = make(seed), make(seed), make(seed + 1)
    assert first.sha256 == again.sha256
    assert rows_of(first) == rows_of(again)
    assert (first.sha256 == other.sha256) == (rows_of(first) == rows_of(other))


def test_a_pass_may_read_fewer_rows_spread_over_all(
    decoder: Tokenizer, encoder: Tokenizer, pico_text: Path
) -> None:
    whole = calibration_from(str(pico_text), decoder, kind="decoder", samples=10, length=16, batch_size=4)
    some = whole.spread(5)
    assert rows_of(some) == rows_of(whole)[::2]
    assert (some.samples, some.effective_tokens) == (5, 80)
    assert [len(batch.input_ids) for batch in some.batches] == [4, 1]
    assert some.sha256 != whole.sha256
    assert whole.spread(None) is whole.spread(10) is whole.spread(11) is whole
    texts = calibration_from(str(pico_text), encoder, kind="encoder", samples=8, length=16, batch_size=3)
    few = texts.spread(3)
    kept, every = rows_of(few), rows_of(texts)
    assert kept == [every[0], every[2], every[5]]
    assert few.effective_tokens == sum(map(len, kept))


def test_hash_is_stable_and_sees_every_id(decoder: Tokenizer, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the river ran under old stone bridges while boats drift", encoding="utf-8")
    calibration = calibration_from(str(text), decoder, kind="decoder", samples=2, length=4)
    twin = calibration_from(str(text), decoder, kind="decoder", samples=2, length=4, batch_size=1)
    assert len(calibration.sha256) == 64
    assert calibration.sha256 != twin.sha256
    description = calibration.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["sha256"] == calibration.sha256
    assert "batches" not in description


def test_repetitions_are_left_out(decoder: Tokenizer, tmp_path: Path) -> None:
    text = tmp_path / "t.jsonl"
    rows = [{"text": "the river ran under old stone"}] * 5 + [
        {"text": "boats drift slowly toward the harbour"}
    ]
    text.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    calibration = calibration_from(str(text), decoder, kind="decoder", samples=1, length=8)
    assert (calibration.documents, calibration.duplicates) == (2, 4)


def test_too_little_text_says_what_would_fit(decoder: Tokenizer, encoder: Tokenizer, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the river ran under old stone bridges\n\nboats drift slowly", encoding="utf-8")
    tokens = len(decoder.encode(text.read_text(encoding="utf-8") + "\n\n", special=False))
    with pytest.raises(CalibrationError, match=rf"{tokens} tokens, 100 × 4 need 400") as caught:
        calibration_from(str(text), decoder, kind="decoder", samples=100, length=4)
    assert f"--samples {tokens // 4} would fit" in caught.value.fix
    fitting = calibration_from(str(text), decoder, kind="decoder", samples=tokens // 4, length=4)
    assert fitting.samples == tokens // 4
    with pytest.raises(CalibrationError, match="give more text"):
        calibration_from(str(text), decoder, kind="decoder", samples=8, length=512)
    with pytest.raises(CalibrationError, match=r"(?s)2 distinct texts, 3 samples.*--samples 2"):
        calibration_from(str(text), encoder, kind="encoder", samples=3)


def test_length_that_would_fit_is_offered(decoder: Tokenizer, pico_text: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        calibration_from(str(pico_text), decoder, kind="decoder", samples=4, length=100_000)
    length = int(caught.value.fix.split("--length ")[1].split()[0])
    assert calibration_from(str(pico_text), decoder, kind="decoder", samples=4, length=length).samples == 4


def test_ids_beyond_the_embedding_are_refused(decoder: Tokenizer, pico_text: Path) -> None:
    with pytest.raises(CalibrationError, match="embeddings for 5 tokens"):
        calibration_from(str(pico_text), decoder, kind="decoder", samples=2, length=8, vocab_size=5)


@pytest.mark.parametrize("sizes", [{"samples": 0}, {"length": 1}, {"batch_size": 0}])
def test_sizes_must_be_positive(decoder: Tokenizer, pico_text: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="calibration needs"):
        calibration_from(str(pico_text), decoder, kind="decoder", **sizes)


@pytest.fixture()
def chats(tmp_path: Path) -> str:
    path = tmp_path / "chats.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"count {n} copper coins"}]} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "plain words follow"}])), encoding="utf-8")
    return str(path)


@pytest.mark.chain
def test_conversations_go_through_the_chat_template(decoder: Tokenizer, chats: str) -> None:
    calibration = calibration_from(chats, decoder, kind="decoder", samples=1, length=400)
    text = decoder.decode(rows_of(calibration)[0], skip_special=False)
    assert text.startswith("<|im_start|>user\ncount 0 copper coins<|im_end|>\n<|im_start|>user")
    assert calibration.chat


@pytest.mark.chain
def test_plain_text_stays_plain_unless_asked(decoder: Tokenizer, chats: str, pico_text: Path) -> None:
    never = calibration_from(chats, decoder, kind="decoder", samples=1, length=60, chat="never")
    text = decoder.decode(rows_of(never)[0], skip_special=False)
    assert "copper coins\n\ncount" in text
    assert "<|im_start|>" not in text
    assert not never.chat
    auto = calibration_from(str(pico_text), decoder, kind="decoder", samples=1, length=60)
    assert not auto.chat
    always = calibration_from(str(pico_text), decoder, kind="decoder", samples=20, length=60, chat="always")
    assert always.chat
    assert any("<|im_start|>user\n" in decoder.decode(row, skip_special=False) for row in rows_of(always))


def test_conversations_need_a_template(pico_bert: Path, chats: str) -> None:
    with pytest.raises(InputError, match="no chat template"):
        calibration_from(chats, Tokenizer.open(pico_bert), kind="decoder", samples=1, length=8)
    with pytest.raises(InputError, match="only a decoder"):
        calibration_from(chats, Tokenizer.open(pico_bert), kind="encoder", samples=1, length=8, chat="always")
    with pytest.raises(UnknownName, match="did you mean 'never'"):
        calibration_from(chats, Tokenizer.open(pico_bert), kind="decoder", chat="nver")  # type: ignore[arg-type]


def labelled(folder: Path, count: int = 12) -> Path:
    file = folder / "rows.jsonl"
    rows = [
        {"text": f"row number {n} " * (1 + n % 3), "label": ("bad", "good", 1)[n % 3]} for n in range(count)
    ]
    rows += [rows[0] | {"label": "good"}, {"text": "a row that says nothing"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_a_classifier_gets_whole_documents_with_their_labels(encoder: Tokenizer, tmp_path: Path) -> None:
    source = str(labelled(tmp_path))
    found = calibration_from(
        source, encoder, kind="encoder", samples=13, batch_size=4, labels=("bad", "good")
    )
    expected = {
        tuple(encoder.encode(f"row number {n} " * (1 + n % 3))): (0, 1, 1)[n % 3] for n in range(12)
    } | {tuple(encoder.encode("a row that says nothing")): -1}
    labels = [int(label) for batch in found.batches for label in batch.labels]  # type: ignore[union-attr]
    assert dict(zip(map(tuple, rows_of(found)), labels, strict=True)) == expected
    some = found.spread(5)
    kept = [int(label) for batch in some.batches for label in batch.labels]  # type: ignore[union-attr]
    assert [expected[tuple(row)] for row in rows_of(some)] == kept
    unlabelled = calibration_from(source, encoder, kind="encoder", samples=13)
    assert all(batch.labels is None for batch in unlabelled.batches)
    assert unlabelled.sha256 != found.sha256


def test_the_targets_of_rows_are_what_a_decoder_writes(encoder: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    said = zip(sentences(9, seed=1), sentences(9, seed=2), strict=True)
    rows = [{"text": text, "target": target[: 20 * n + 9]} for n, (text, target) in enumerate(said)]
    file.write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"target": "another"}])))
    found = calibration_from(str(file), encoder, kind="encoder_decoder", samples=9, batch_size=4, length=20)
    expected = {
        tuple(encoder.encode(row["text"], max_length=20)): encoder.encode(row["target"], max_length=20)
        for row in rows
    }
    for calibration, count in ((found, 9), (found.spread(4), 4)):
        written = [batch.answers for batch in calibration.batches]
        answers = [
            ids[mask.bool()].tolist()
            for answer in written
            if answer is not None
            for ids, mask in zip(answer.input_ids, answer.attention_mask, strict=True)
        ]
        assert [expected[tuple(row)] for row in rows_of(calibration)] == answers
        assert len(answers) == count
    file.write_text("\n".join(map(json.dumps, [*rows, {"text": "alone"}])))
    with pytest.raises(CalibrationError, match=r"1 of 10 rows .* have no target"):
        calibration_from(str(file), encoder, kind="encoder_decoder", samples=9)
    plain = calibration_from(str(file), encoder, kind="encoder", samples=9)
    assert all(batch.answers is None for batch in plain.batches)


def test_labels_that_the_model_does_not_have_are_refused(encoder: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the label 'good'"):
        calibration_from(
            str(labelled(tmp_path)), encoder, kind="encoder", samples=4, labels=("bad", "better")
        )
