"""A small T5 that gives words their vowels back: its task, and that it learns what is measured."""

from pathlib import Path

import pytest
import torch
from edgepress.benchmarks.lab.makers import shortened_words as maker
from edgepress.benchmarks.lab.makers.shortened_words import (
    LETTERS,
    SPECIAL,
    T5Shape,
    save_small_t5,
    shortened,
)
from edgepress.compress.model.weights import WeightSource
from edgepress.runtime.text.tokenizer import Tokenizer

pytestmark = pytest.mark.chain


WORDS = ["river", "under", "merchants", "weight", "counted"]


def test_vowels_that_begin_a_word_stay() -> None:
    assert [shortened(word) for word in WORDS[:3]] == ["rvr", "undr", "mrchnts"]
    assert shortened("idea") == "id"


def test_tokens_are_letters(tmp_path: Path) -> None:
    model = save_small_t5(tmp_path / "m", T5Shape(layers=1))
    tokenizer = Tokenizer.open(model)
    ids = tokenizer.encode("river")
    assert len(ids) == 6 and ids[-1] == 1 and ids[3] == len(SPECIAL) + LETTERS.index("e")
    assert tokenizer.decode(ids[:-1]) == "river"
    batch = maker.encoded(tokenizer, WORDS)
    assert batch["attention_mask"].sum(1).tolist() == [len(shortened(word)) + 1 for word in WORDS]
    assert (batch["labels"] >= 0).sum(1).tolist() == [len(word) + 1 for word in WORDS]


def test_a_model_learns_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "BATCH", 4)
    monkeypatch.setattr(maker, "RATE", 5e-3)
    torch.manual_seed(0)
    model = save_small_t5(tmp_path / "m", T5Shape(hidden=64, ffn=128, layers=1))
    before = maker.answers(model, WORDS)
    maker.train(model, WORDS, 300, tmp_path / "t")
    written, loss = maker.answers(tmp_path / "t", WORDS)
    assert before[0] != WORDS and loss < 0.1 * before[1]
    assert written == WORDS
    assert WeightSource.open(tmp_path / "t").anatomy.layers() == (1, 1)
